import pytest
import tiny_recipes
from mmengine.config import Config
from mmpretrain.models import ImageClassifier

from mmdiffkd.utils.command_line import merge_options, package_of


def config():
    entry = dict(at='x', weight=1.0)
    model = dict(distill=dict(feature=entry, logits=dict(at='y')))
    return Config(dict(model=model, optim_wrapper=dict(), mine=1))


@pytest.mark.parametrize(
    'key, value, message',
    [
        ('model.distill.features', None, "no entry 'features'.*'feature'"),
        ('optim_wraper.optimizer.lr', 0.1, "mean 'optim_wrapper'"),
        ('modle.distill.feature.weight', 0, "no 'modle'.*mean 'model'"),
        ('load_form', 'a.pth', "'load_form'.*mean 'load_from'"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(key, value, message):
    with pytest.raises(ValueError, match=f'{key}={value}.*{message}'):
        merge_options(config(), {key: value})


def test_options_are_merged():
    cfg = config()
    merge_options(
        cfg,
        {
            'model.distill.logits': None,
            'model.distill.feature.weight': 0.5,
            'load_from': 'a.pth',
            'tta_pipeline': [],
            'test_pipeline': [],
            'strategy.type': 'FSDPStrategy',
            'mine': 2,
        },
    )
    distill = dict(feature=dict(at='x', weight=0.5), logits=None)
    assert cfg.model.distill == distill
    assert (cfg.load_from, cfg.mine) == ('a.pth', 2)
    assert cfg.strategy.type == 'FSDPStrategy'


@pytest.mark.parametrize(
    'model, scope, package',
    [
        (dict(type='A'), 'mmseg', 'mmseg'),
        (dict(type='mmdet.RetinaNet'), None, 'mmdet'),
        (dict(type=ImageClassifier), None, 'mmpretrain'),
        (dict(type=type('Mine', (ImageClassifier,), {})), None, 'mmpretrain'),
        (tiny_recipes.distiller(dict(type=ImageClassifier)), None,
         'mmpretrain'),
    ],
)  # fmt: skip
def test_package_of_a_config(model, scope, package):
    assert (
        package_of(Config(dict(model=model, default_scope=scope))) == package
    )
