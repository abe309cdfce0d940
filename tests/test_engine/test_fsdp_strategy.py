import pytest
import sharded_processes
import tiny_recipes
import torch
from mmengine.registry import STRATEGIES
from torch import nn

from mmdiffkd.engine.fsdp_strategy import FSDPStrategy

RUNS = ('whole', 'sharded', 'blocks', 'resumed')


@pytest.fixture(scope='module')
def found(tmp_path_factory):
    """By run: the last checkpoint, and what either process held."""
    folder = tmp_path_factory.mktemp('sharded')
    sharded_processes.start(folder, 'fsdp')
    assert not list(folder.glob('*/.*.tmp'))
    return {
        run: (
            torch.load(folder / run / 'epoch_2.pth', weights_only=False),
            sharded_processes.held(folder, run),
        )
        for run in RUNS
    }


def weights(checkpoint):
    return {**checkpoint['state_dict'], **checkpoint['distill_state_dict']}


@pytest.mark.slow
@pytest.mark.parametrize('run', ['sharded', 'blocks', 'resumed'])
def test_weights_are_those_of_whole_training(found, run):
    expected, _ = found['whole']
    checkpoint, _ = found[run]
    torch.testing.assert_close(weights(checkpoint), weights(expected))
    assert checkpoint['meta']['iter'] == expected['meta']['iter'] == 2


@pytest.mark.slow
@pytest.mark.parametrize('run', ['sharded', 'blocks'])
def test_norm_is_that_of_all_gradients(found, run):
    for ours, theirs in zip(found[run][1], found['whole'][1]):
        assert ours['norm'] == pytest.approx(theirs['norm'], rel=1e-5)


@pytest.mark.slow
def test_checkpoint_is_the_plain_students(found, build):
    checkpoint, _ = found['sharded']
    plain = build(tiny_recipes.classifier())
    plain.load_state_dict(checkpoint['state_dict'], strict=True)


@pytest.mark.slow
def test_processes_share_all_but_the_teacher(found):
    whole, sharded = found['whole'][1], found['sharded'][1]
    for name in ('parameters', 'momentum'):
        total = whole[0][name]
        parts = [process[name] for process in sharded]
        assert sum(parts) == total
        assert max(parts) < 0.51 * total
    teachers = {process['teacher'] for process in (*whole, *sharded)}
    assert len(teachers) == 1 and teachers.pop() > 0


def strategy(tmp_path, **settings):
    return STRATEGIES.build(
        dict(
            type='mmdiffkd.FSDPStrategy',
            work_dir=str(tmp_path),
            env_kwargs=dict(launcher='none'),
            **settings,
        )
    )


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(skip_init_weights=True), 'strategy.skip_init_weights'),
        (dict(state_dict_cfg='local'), 'strategy.state_dict_cfg'),
        (
            dict(model_wrapper=dict(auto_wrap_policy='x')),
            'auto_wrap_policy.*strategy.units',
        ),
        (
            dict(
                model_wrapper=dict(
                    mixed_precision=dict(buffer_dtype='float16')
                )
            ),
            'buffer_dtype.*float32',
        ),
    ],
)
def test_what_would_leave_a_distiller_wrong(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        strategy(tmp_path, **settings)


def test_unknown_units(tmp_path, build):
    made = strategy(tmp_path, units='SwinBlock')
    assert isinstance(made, FSDPStrategy)
    with pytest.raises(ValueError, match=r"\['SwinBlock'\].*BasicBlock"):
        made._wrap_model(build(tiny_recipes.distiller()))


@pytest.mark.parametrize(
    'task', [dict(task_weight=0), dict(task_schedule=dict(stop=3))]
)
def test_without_the_task(tmp_path, build, task):
    model = build(tiny_recipes.distiller(**task))
    with pytest.raises(ValueError, match='`model.task_weight` is 0, or'):
        strategy(tmp_path)._wrap_model(model)


def test_plain_model(tmp_path):
    with pytest.raises(TypeError, match="type='FSDPStrategy'"):
        strategy(tmp_path)._wrap_model(nn.Linear(2, 2))
