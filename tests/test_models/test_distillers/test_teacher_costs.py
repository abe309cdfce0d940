from pathlib import Path

import pytest
import tiny_recipes
import torch


def logits_recipe(tmp_path, base):
    model = tiny_recipes.distiller(
        teacher=tiny_recipes.teacher(base),
        distill=dict(
            logits=dict(at='head.fc', loss=dict(type='KLDivergence'))
        ),
    )
    return tiny_recipes.distill_recipe(tmp_path, model, epochs=1)


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """A run with a small teacher, and one with a teacher 16 times as big."""
    folders = (tmp_path_factory.mktemp('teacher') for _ in range(2))
    return [
        tiny_recipes.train(logits_recipe(folder, base))
        for folder, base in zip(folders, (6, 24))
    ]


def nbytes(tensors):
    return sum(t.numel() * t.element_size() for t in tensors)


def teacher_bytes(runner):
    return nbytes(runner.model.teacher.network.parameters())


def test_teachers_differ_in_size(runs):
    small, large = map(teacher_bytes, runs)
    assert large > 10 * small > 0


def test_no_optimizer_state(runs):
    for runner in runs:
        optimizer = runner.optim_wrapper.optimizer
        momenta = [
            value
            for state in optimizer.state.values()
            for value in state.values()
            if isinstance(value, torch.Tensor)
        ]
        assert nbytes(momenta) == nbytes(runner.model.parameters())
    small, large = (nbytes(r.model.parameters()) for r in runs)
    assert small == large


def test_no_gradient(runs):
    for runner in runs:
        network = runner.model.teacher.network
        for parameter in network.parameters():
            assert parameter.grad is None and not parameter.requires_grad


def test_no_space_in_checkpoints(runs):
    small, large = (Path(runner.work_dir) / 'epoch_1.pth' for runner in runs)
    # File names and log entries differ by a few bytes, a teacher by many.
    difference = abs(large.stat().st_size - small.stat().st_size)
    assert difference < 0.01 * teacher_bytes(runs[0])
    state = torch.load(large, weights_only=False)
    assert not any('teacher' in key for key in state['state_dict'])
