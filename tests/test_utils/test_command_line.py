import pytest
import tiny_recipes
from mmengine.config import Config
from mmpretrain.models import ImageClassifier

from mmdiffkd.utils.command_line import merge_options, package_of


def config():
    entry = dict(at='x', weight=1.0)
    model = dict(distill=dict(feature=entry, logits=dict(at='y')))
    return Config(
        dict(model=model, optim_wrapper=dict(), mine=1, loaders=[dict()])
    )


@pytest.mark.parametrize(
    'key, value, message',
    [
        ('model.distill.features', None, "no entry 'features'.*'feature'"),
        ('model.distill.feature.at.0', 'y', '`model.distill.feature.at` is'),
        ('mine.x', 2, '`mine` is 1, in which nothing can be set'),
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
            'loaders.0.batch_size': 2,
            'new.one.here': 1,
            'strategy.type': 'FSDPStrategy',
            'mine': 2,
        },
    )
    distill = dict(feature=dict(at='x', weight=0.5), logits=None)
    assert cfg.model.distill == distill
    assert (cfg.load_from, cfg.mine) == ('a.pth', 2)
    assert cfg.loaders == [dict(batch_size=2)] and cfg.new.one.here == 1
    assert cfg.strategy.type == 'FSDPStrategy'


LOSS = 'model.distill.feature.loss'


@pytest.mark.parametrize(
    'options, kept',
    [
        ({'type': 'DISTLoss'}, 'tau, loss_weight stay'),
        ({'type': 'DISTLoss', 'tau': 1.0}, 'DISTLoss: loss_weight stay'),
        ({'type': 'DISTLoss', '_delete_': True}, None),
        ({'type': 'KLDivergence'}, None),
        ({'tau': 1.0}, None),
    ],
)
def test_what_stays_from_a_former_type_is_said(options, kept, log):
    cfg = config()
    former = dict(type='KLDivergence', tau=4.0, loss_weight=2.0)
    cfg.model.distill.feature.loss = former
    merge_options(cfg, {f'{LOSS}.{k}': v for k, v in options.items()})
    assert (kept or '') in log.text
    assert ('_delete_=True' in log.text) == (kept is not None)


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


def test_what_is_none_can_be_replaced_as_a_dict():
    config = Config(dict(model=dict(distill=dict(f=dict(neck=None)))))
    neck = 'model.distill.f.neck'
    merge_options(config, {f'{neck}._delete_': True, f'{neck}.type': 'A'})
    assert config.model.distill.f.neck == dict(type='A')
