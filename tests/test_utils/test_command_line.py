import pytest
from mmengine.config import Config

from mmdiffkd.utils.command_line import merge_options


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
