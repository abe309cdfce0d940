import pytest
import tiny_recipes
import torch
from mmengine.hooks import Hook
from tiny_recipes import distill_recipe, train

from mmdiffkd.utils import read_checkpoint


def test_checkpoint_is_the_plain_students(tmp_path, build):
    runner = train(distill_recipe(tmp_path))
    checkpoint = read_checkpoint(tmp_path / 'work/epoch_2.pth')
    assert not [k for k in checkpoint['state_dict'] if 'distill' in k]
    assert checkpoint['distill_state_dict']['distill.step'] == 4
    assert not any('teacher' in k for k in checkpoint['distill_state_dict'])
    plain = build(tiny_recipes.classifier())
    plain.load_state_dict(checkpoint['state_dict'], strict=True)
    assert torch.equal(
        plain.head.fc.weight, runner.model.student.head.fc.weight
    )


def test_plain_runner_loads_it(tmp_path):
    train(distill_recipe(tmp_path))
    checkpoint = tmp_path / 'work/epoch_2.pth'
    plain = train(
        tiny_recipes.recipe(
            tmp_path,
            tiny_recipes.classifier(),
            epochs=1,
            load_from=str(checkpoint),
            work_dir=str(tmp_path / 'plain'),
            optim_wrapper=dict(optimizer=dict(lr=0.0, weight_decay=0.0)),
        )
    )
    saved = read_checkpoint(checkpoint)['state_dict']
    assert torch.equal(plain.model.head.fc.weight, saved['head.fc.weight'])


def test_load_from_a_plain_checkpoint_initialises_the_student(tmp_path):
    train(
        tiny_recipes.recipe(
            tmp_path,
            tiny_recipes.classifier(),
            epochs=1,
            work_dir=str(tmp_path / 'plain'),
        )
    )
    plain = tmp_path / 'plain/epoch_1.pth'
    config = distill_recipe(tmp_path, epochs=1, load_from=str(plain))
    config.optim_wrapper.optimizer = dict(type='SGD', lr=0.0)
    runner = train(config)
    saved = read_checkpoint(plain)['state_dict']
    assert torch.equal(
        runner.model.student.head.fc.weight, saved['head.fc.weight']
    )


def weights(runner):
    return {k: v.clone() for k, v in runner.model.state_dict().items()}


def train_from(config):
    """Train; gives the runner and the weights that it began with."""
    begun = {}

    class Remember(Hook):
        def before_train(self, runner):
            begun.update(weights(runner))

    return train(config, Remember()), begun


@pytest.mark.parametrize('ema', [False, True])
def test_resume_restores_student_and_necks(tmp_path, ema):
    hooks = [dict(type='EMAHook', momentum=0.3)] if ema else []
    first = train(distill_recipe(tmp_path, custom_hooks=hooks))
    trained = weights(first)
    checkpoint = read_checkpoint(tmp_path / 'work/epoch_2.pth')
    for key, value in checkpoint['distill_state_dict'].items():
        assert torch.equal(value, trained[key]), key
    ema_keys = checkpoint.get('ema_state_dict', {})
    assert not any('distill' in key for key in ema_keys)
    assert bool(ema_keys) == ema
    runner, seen = train_from(
        distill_recipe(tmp_path, epochs=3, resume=True, custom_hooks=hooks)
    )
    assert runner.epoch == 3
    for key, value in trained.items():
        assert torch.equal(seen[key], value), key
    assert runner.model._step == 6


METHODS = {
    'CRD, its embeddings and banks': dict(
        at='neck[-1]', loss=dict(type='CRDLoss', neg_num=4, dim_out=4)
    ),
    'LSH, its planes and their bias': dict(
        at='neck[-1]',
        neck=dict(type='ProjectionNeck', feature='vector'),
        loss=dict(type='LSHLoss', hash_bits=8, hash_std=1.0),
    ),
    'VID, its variances': dict(
        at='backbone[:]', neck=dict(type='VIDNeck'), loss=dict(type='VIDLoss')
    ),
    'PEFD, its projectors': dict(
        at='neck[-1]',
        neck=dict(type='ProjectorEnsembleNeck'),
        loss=dict(type='DirectionAlignmentLoss'),
    ),
}


@pytest.mark.parametrize('entry', METHODS.values(), ids=METHODS)
def test_resume_restores_what_a_method_trains_and_remembers(tmp_path, entry):
    def recipe(epochs, resume):
        model = tiny_recipes.distiller(distill=dict(method=entry))
        return distill_recipe(tmp_path, model, epochs=epochs, resume=resume)

    first, begun = train_from(recipe(epochs=2, resume=False))
    trained = weights(first)
    own = dict(first.model.distill.named_parameters(prefix='distill'))
    groups = first.optim_wrapper.param_groups
    stepped = {id(p) for group in groups for p in group['params']}
    assert own and {id(p) for p in own.values()} <= stepped
    for key in own:
        assert not torch.equal(begun[key], trained[key]), key

    _, resumed = train_from(recipe(epochs=3, resume=True))
    assert resumed.keys() == trained.keys()
    for key, value in trained.items():
        assert torch.equal(resumed[key], value), key
