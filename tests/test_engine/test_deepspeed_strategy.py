import pytest
import sharded_processes
import tiny_recipes
import torch
from torch.testing import assert_close

pytest.importorskip('deepspeed')
# DeepSpeed compiles what it needs.
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('deepspeed')
    sharded_processes.start(folder, 'deepspeed')
    sharded_processes.start(folder, 'deepspeed_resumed')
    return folder


def module(folder, run):
    """Student and necks, as DeepSpeed saves them."""
    file = folder / run / 'epoch_2.pth/mp_rank_00_model_states.pt'
    return torch.load(file, weights_only=False)['module']


@pytest.mark.parametrize('run', ['sharded', 'resumed'])
def test_weights_are_those_of_whole_training(folder, run):
    whole = torch.load(folder / 'whole/epoch_2.pth', weights_only=False)
    expected = {**whole['state_dict'], **whole['distill_state_dict']}
    assert_close(dict(module(folder, run)), expected)


def test_students_names_are_plain(folder, build):
    plain = build(tiny_recipes.classifier())
    found = plain.load_state_dict(module(folder, 'sharded'), strict=False)
    assert not found.missing_keys
    assert all(k.startswith('distill.') for k in found.unexpected_keys)


def test_processes_share_the_optimizers_state(folder):
    whole, sharded = (
        sharded_processes.held(folder, run) for run in ('whole', 'sharded')
    )
    parts = [process['momentum'] for process in sharded]
    assert sum(parts) >= whole[0]['momentum']
    assert max(parts) < 0.51 * whole[0]['momentum']
    for process in sharded:
        assert process['parameters'] == whole[0]['parameters']
        assert process['teacher'] == whole[0]['teacher'] > 0
