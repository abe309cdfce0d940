import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_recipes
import torch
from mmengine.model import convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

TESTS = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def found(tmp_path_factory):
    """What one process found, and what each of two did."""
    folder = tmp_path_factory.mktemp('two_processes')
    environment = {**os.environ, 'PYTHONPATH': str(TESTS)}
    started = [
        subprocess.Popen(
            [
                sys.executable,
                TESTS / 'two_processes.py',
                folder,
                str(rank),
                str(world),
            ],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for world, rank in ((1, 0), (2, 0), (2, 1))
    ]
    for process in started:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-3000:]
    one, *two = (
        torch.load(folder / name) for name in ('1_0.pt', '2_0.pt', '2_1.pt')
    )
    return one, two


@pytest.mark.slow
def test_gradients_are_those_of_the_doubled_batch(found):
    one, two = found
    for name, expected in one['gradients'].items():
        for half in two:
            torch.testing.assert_close(
                half['gradients'][name], expected, rtol=1e-9, atol=1e-12
            )
    assert any('distill' in name for name in one['gradients'])


@pytest.mark.slow
def test_losses_of_twenty_iterations_agree(found):
    one, two = found
    assert one['losses'].shape[0] == 20
    mean = (two[0]['losses'] + two[1]['losses']) / 2
    torch.testing.assert_close(mean, one['losses'], rtol=1e-8, atol=1e-11)
    assert not torch.allclose(two[0]['losses'], two[1]['losses'])
    assert one['losses'][-1, 2] < one['losses'][0, 2]


@pytest.mark.slow
def test_entries_that_are_off_leave_no_parameter_unused(found):
    for half in found[1]:
        # DDP would stop the second step if one were.
        task, distance, total = half['off'].unbind(1)
        assert len(task) == 3 and (distance == 0).all()
        assert torch.equal(task, total)
        assert half['stopped'][0, 1] > 0
        assert (half['stopped'][1:, 1] == 0).all()


@pytest.mark.slow
def test_without_the_task_no_parameter_is_left_unused(found):
    for half in found[1]:
        task, distance, total = half['without task'].unbind(1)
        assert len(task) == 3 and (task == 0).all()
        assert (distance > 0).all() and (total > 0).all()
        assert half['ended'][0, 0] > 0
        assert (half['ended'][1:, 0] == 0).all()
        assert half['begun'][0, 0] == 0
        assert (half['begun'][1:, 0] > 0).all()


@pytest.mark.slow
def test_ranks_draw_different_noise_by_default(found):
    first, second = (half['drawn'] for half in found[1])
    assert first.keys() == {'noise', 'diffusion_noise', 'timesteps'}
    for name in first:
        assert not torch.equal(first[name], second[name])


def norms(module):
    return [m for m in module.modules() if isinstance(m, _BatchNorm)]


def test_synchronised_batch_norm_is_for_what_is_trained(build):
    model = build(tiny_recipes.distiller())
    count = len(norms(model.distill))
    model = convert_sync_batchnorm(model, 'torch')
    synchronised = norms(model.student) + norms(model.distill)
    assert all(isinstance(m, nn.SyncBatchNorm) for m in synchronised)
    assert len(norms(model.distill)) == count > 0
    teachers = norms(model.teacher.network)
    assert not any(isinstance(m, nn.SyncBatchNorm) for m in teachers)


@pytest.mark.slow
def test_teacher_is_in_no_bucket(found):
    for half in found[1]:
        assert half['ddp_bytes'] == half['own_bytes']
