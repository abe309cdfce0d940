import io
import pickle
import random

import numpy as np
import pytest
import torch

from mmdiffkd.utils.randomness import (
    derive_seed,
    isolated_randomness,
    random_state,
    seed_generators,
    set_random_state,
)


def draw():
    return torch.rand(1).item(), np.random.rand(), random.random()


@pytest.mark.parametrize('fails', [False, True])
def test_streams_go_on_as_if_nothing_had_been_drawn(fails):
    def seed():
        torch.manual_seed(1)
        np.random.seed(1)
        random.seed(1)

    seed()
    expected = draw()
    seed()
    try:
        with isolated_randomness():
            draw()
            np.random.seed(7)
            if fails:
                raise RuntimeError
    except RuntimeError:
        pass
    assert draw() == expected


def test_seed_depends_on_every_part_and_on_nothing_else():
    seeds = {
        derive_seed('a', 1, 2),
        derive_seed('b', 1, 2),
        derive_seed('a', 2, 1),
        derive_seed('a', 12),
    }
    assert len(seeds) == 4
    assert derive_seed('a', 1, 2) == derive_seed('a', 1, 2)
    assert all(0 <= seed < 2**63 for seed in seeds)
    # The same on every machine and in every process.
    assert derive_seed('feature', 0, 0, 0) == 5976863386951464597


@pytest.mark.parametrize('travels', ['file', 'process'])
def test_a_state_is_restored(travels):
    torch.manual_seed(7), np.random.seed(7), random.seed(7)
    # NumPy keeps every second normal number for later.
    np.random.randn()
    state = random_state()
    expected = draw(), np.random.randn(), draw()
    if travels == 'file':
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
    else:
        state = pickle.loads(pickle.dumps(state))
    torch.manual_seed(8), np.random.seed(8), random.seed(8)
    set_random_state(state)
    assert (draw(), np.random.randn(), draw()) == expected
    # On which a distiller's own streams depend.
    assert torch.initial_seed() == 7


def test_every_generator_is_seeded():
    seed_generators(2**62 + 5)
    first = draw()
    draw()
    seed_generators(2**62 + 5)
    assert draw() == first
    seed_generators(2**62 + 6)
    assert all(a != b for a, b in zip(draw(), first))
