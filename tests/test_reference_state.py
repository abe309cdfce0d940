import numpy as np
import pytest
import torch
from reference_state import PREFIXES, load_reference_state

from mmdiffkd.models.necks import DiffKDNeck

ROWS = np.array([0, 7, 400])


def released_name(name):
    for released, prefix in PREFIXES.items():
        if name.startswith(prefix):
            return 'state/' + released + name.removeprefix(prefix)
    raise KeyError(name)


def released_arrays(neck):
    """The neck's state as a file of references would hold it."""
    arrays = {'embedding_rows': ROWS, 'student': np.ones(1)}
    for name, value in neck.state_dict().items():
        key, array = released_name(name), value.double().numpy()
        if name == 'denoiser.time_embedding.weight':
            array = array[ROWS]
        elif array.ndim == 2 and 'gate' not in name:
            array = array[..., None, None]
        arrays[key] = array
    return arrays


@pytest.mark.parametrize(
    'arguments',
    [
        {},
        {'latent_channels': 3},
        {'noise_matching': False},
        {'feature': 'vector'},
        {'feature': 'vector', 'latent_channels': 3},
        {'feature': 'vector', 'noise_matching': False},
    ],
)
def test_any_file(arguments):
    source, neck = (DiffKDNeck(6, 4, **arguments) for _ in range(2))
    kept = neck.denoiser.time_embedding.weight[1].double()
    load_reference_state(neck, released_arrays(source))
    for name, value in neck.state_dict().items():
        expected = source.state_dict()[name]
        if name == 'denoiser.time_embedding.weight':
            torch.testing.assert_close(value[1], kept)
            value, expected = value[ROWS], expected[ROWS]
        assert value.dtype in (torch.float64, torch.int64)
        assert torch.equal(value, expected.to(value.dtype))


def test_incomplete_file():
    arrays = released_arrays(DiffKDNeck(6, 4))
    del arrays['state/trans.bias']
    with pytest.raises(RuntimeError, match='student_projection.bias'):
        load_reference_state(DiffKDNeck(6, 4), arrays)


def test_unknown_parameter():
    arrays = released_arrays(DiffKDNeck(6, 4))
    arrays['state/extra.weight'] = np.ones(3)
    with pytest.raises(KeyError, match='extra.weight'):
        load_reference_state(DiffKDNeck(6, 4), arrays)
