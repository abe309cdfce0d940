import tiny_recipes
from mmengine.config import Config

from mmdiffkd.analysis.report.settings import (
    differences,
    distillation_lines,
    settings_of,
)


def test_settings_by_key():
    config = Config(
        dict(
            a=dict(b=(1, 2), c={}),
            hooks=[dict(type='X'), 3],
        )
    )
    assert settings_of(config) == {
        'a.b': '(1, 2)',
        'a.c': '{}',
        'hooks.0.type': "'X'",
        'hooks.1': '3',
    }


def test_what_distillation_adds(tmp_path):
    lines = distillation_lines(tiny_recipes.distill_recipe(tmp_path))
    keys = {(sign, key) for sign, key, _ in lines}
    constructor = "'mmdiffkd.OptimWrapperConstructor'"
    assert ('+', 'optim_wrapper.constructor', constructor) in lines
    checkpoint = 'default_hooks.checkpoint.type'
    assert [line for line in lines if line[1] == checkpoint] == [
        ('-', checkpoint, "'CheckpointHook'"),
        ('+', checkpoint, "'mmdiffkd.CheckpointHook'"),
    ]
    assert ('+', 'model.distill.feature.neck.latent_channels', '8') in lines
    # Nothing else is taken away, and the student is the plain recipe's.
    assert {key for sign, key in keys if sign == '-'} == {checkpoint}
    assert not any(key.startswith('model.student') for _, key in keys)
    assert not any(key == 'work_dir' for _, key in keys)


def test_a_plain_recipe_adds_nothing(tmp_path):
    recipe = tiny_recipes.recipe(tmp_path, tiny_recipes.classifier())
    assert distillation_lines(recipe) == []
    assert distillation_lines(Config()) == []


def test_in_what_runs_differ():
    configs = [
        Config(dict(work_dir='a', lr=0.1, seed=0)),
        Config(dict(work_dir='b', lr=0.2, seed=0, extra=dict(on=True))),
    ]
    assert differences(configs) == {
        'lr': ['0.1', '0.2'],
        'extra.on': [None, 'True'],
    }


def test_a_plain_model_stands_beside_the_students(tmp_path):
    plain = tiny_recipes.recipe(tmp_path, tiny_recipes.classifier(base=8))
    rows = differences([plain, tiny_recipes.distill_recipe(tmp_path)])
    assert rows['model.student.backbone.base_channels'] == ['8', '4']
    assert 'model.student.backbone.depth' not in rows
    assert rows['model.type'][0] is None
