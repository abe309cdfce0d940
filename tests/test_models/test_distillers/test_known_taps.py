from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest
import tiny_recipes
from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import nn

from mmdiffkd.models.distillers.heads import head_of
from mmdiffkd.models.distillers.image_shape import find_shape, image_shapes
from mmdiffkd.models.distillers.known_taps import (
    BACKBONES,
    MEANINGS,
    TABLE,
    row_of,
    taps_of,
)
from mmdiffkd.models.distillers.probe import tapped_levels
from mmdiffkd.models.distillers.recognition import layout_of
from mmdiffkd.models.distillers.taps import Taps
from mmdiffkd.models.distillers.teacher import build_from_config
from mmdiffkd.utils import load_config

DATA = Path(__file__).resolve().parents[2] / 'data/stock_taps.txt'
QUICK, SLOW = (
    [line for line in part.splitlines() if line and not line.startswith('#')]
    for part in DATA.read_text().split('\n# Slow\n')
)
NOTHING = dict.fromkeys(MEANINGS)
#: Configs whose logits no rule of `known_heads` tells.
UNCERTAIN = (
    'mmpretrain::deit/deit-tiny-distilled',
    'mmpretrain::inception_v3',
    'mmpretrain::resnet/resnet50_8xb256-rsb',
    'mmpretrain::vgg',
    'mmseg::knet',
    'mmseg::segmenter',
)
#: Whose head mmpretrain does not run in training.
UNTRAINABLE = 'mmpretrain::levit'


def build(name):
    config = load_config(name)
    if config.get('default_scope') is None:
        config.default_scope = name.partition('::')[0]
    return build_from_config(config)


def run(network, taps, size, training):
    """The shapes of what taps yield, as maps and vectors, by tap.

    And the sizes of the maps that the backbone returns.
    """
    whole = ['backbone'] if hasattr(network, 'backbone') else []
    taps = Taps(network, [*whole, *taps], 'student')
    candidates = image_shapes(network, size)
    shape, shapes, _ = find_shape(network, taps, candidates, training)
    outputs = shapes.pop('backbone', [])
    returned = [each[2:] for each in outputs if len(each) == 4]
    levels = tapped_levels(network, taps, shapes, shape, training)
    size = shape[-2:]
    return {
        tap: [
            layout_of(each, size).arranged(each.shape, size) for each in found
        ]
        for tap, found in levels.items()
    }, returned


def classes_of(network, tap):
    """The number of classes that a module around a tap declares."""
    parts = tap.split('.')
    around = ['.'.join(parts[:depth]) for depth in range(len(parts), 0, -1)]
    for path in [*around, 'data_preprocessor']:
        module = network.get_submodule(path)
        for name in ('num_classes', 'num_labels'):
            if hasattr(module, name):
                return getattr(module, name)
    return None


def check_stock(line):
    name, *expected = line.split(' | ')
    name, _, size = name.partition('@')
    network = build(name)
    assert list(taps_of(network).values()) == [
        None if taps == '-' else tuple(taps.split()) for taps in expected
    ]
    modes = (False,) if name.startswith(UNTRAINABLE) else (False, True)
    for training in modes:
        check(
            network,
            training,
            int(size) if size else None,
            certain=not name.startswith(UNCERTAIN),
        )


def check(network, training, size=None, certain=True):
    """Whether the taps yield what their names promise."""
    found = taps_of(network)
    taps = dict.fromkeys(sum(filter(None, found.values()), ()))
    shapes, returned = run(network, taps, size, training)
    ((*_, height, width),) = shapes[found['last_map'][0]]
    assert len(found['last_map']) == 1
    assert all((height, width) <= tuple(each) for each in returned)
    pyramid = [
        tuple(shape[2:])
        for tap in found['pyramid'] or ()
        for shape in shapes[tap]
    ]
    assert len(pyramid) != 1
    for finer, coarser in pairwise(pyramid):
        assert finer[0] > coarser[0] and finer[1] > coarser[1]
    for tap in found['logits'] or ():
        classes = classes_of(network, tap.partition('[')[0])
        for shape in shapes[tap]:
            # A softmax over boxes has the background, too.
            assert 0 in (shape[1] % classes, shape[1] % (classes + 1))
            head = head_of(network, tap, shape[1], training)
            assert head.kind == 'classes' if certain else head is None
    for tap in found['boxes'] or ():
        for shape in shapes[tap]:
            # Sides of a box or coordinates of points.
            assert shape[1] % 2 == 0
            assert head_of(network, tap, shape[1], training).activation is None
    for tap in found['auxiliary'] or ():
        ((_, channels, *_),) = shapes[tap]
        assert channels in (1, classes_of(network, tap))


@pytest.mark.parametrize('line', QUICK, ids=lambda line: line.split(' |')[0])
def test_stock_config(line):
    check_stock(line)


@pytest.mark.slow
@pytest.mark.parametrize('line', SLOW, ids=lambda line: line.split(' |')[0])
def test_another_stock_config(line):
    check_stock(line)


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('resnet18', ['layer4', 'act1 layer1 layer2 layer3 layer4', 'fc']),
        ('vit_tiny_patch16_224', ['blocks.11', None, 'head']),
        (
            'swin_tiny_patch4_window7_224',
            ['layers.3', 'layers.0 layers.1 layers.2 layers.3', 'head.fc'],
        ),
        ('hrnet_w18_small', ['stage4[-1]', 'stage4[:]', 'classifier']),
    ],
)
def test_models_of_timm(name, expected):
    pytest.importorskip('timm')
    model = dict(
        type='TimmClassifier',
        _scope_='mmpretrain',
        model_name=name,
        num_classes=10,
    )
    network = MMENGINE_MODELS.build(model)
    assert list(taps_of(network).values()) == [
        *(
            each and tuple(f'model.{path}' for path in each.split())
            for each in expected
        ),
        None,
        None,
    ]
    check(network, training=False)


def test_a_model_of_timm_without_classes():
    pytest.importorskip('timm')
    model = dict(
        type='TimmClassifier',
        _scope_='mmpretrain',
        model_name='vit_tiny_patch16_224',
        num_classes=0,
    )
    last_map = ('model.blocks.11',)
    assert taps_of(MMENGINE_MODELS.build(model)) == NOTHING | dict(
        last_map=last_map
    )


HIERARCHICAL = dict(embed_dim=8, depths=[1, 1], num_heads=[1, 1])
PLAIN = dict(
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=1,
    intermediate_size=8,
    image_size=64,
    patch_size=16,
)
RESNET = dict(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
CONVNEXT = dict(num_stages=2, hidden_sizes=[8, 16], depths=[1, 1])


@pytest.mark.parametrize(
    ('name', 'config', 'expected'),
    [
        ('ViT', PLAIN, ['vit.layernorm', None, 'classifier']),
        ('DeiT', PLAIN, ['deit.layernorm', None, 'classifier']),
        ('Dinov2', PLAIN, ['dinov2.layernorm', None, 'classifier']),
        (
            'Swin',
            HIERARCHICAL | dict(image_size=64, window_size=4),
            ['swin.layernorm', None, 'classifier'],
        ),
        (
            'ResNet',
            RESNET,
            [
                'resnet.encoder.stages.1',
                'resnet.encoder.stages.0 resnet.encoder.stages.1',
                'classifier.1',
            ],
        ),
        (
            'ConvNext',
            CONVNEXT,
            [
                'convnext.encoder.stages.1',
                'convnext.encoder.stages.0 convnext.encoder.stages.1',
                'classifier',
            ],
        ),
    ],
)
def test_models_of_hugging_face(name, config, expected, tmp_path):
    transformers = pytest.importorskip('transformers')
    config = getattr(transformers, f'{name}Config')(num_labels=7, **config)
    kind = getattr(transformers, f'{name}ForImageClassification')
    kind(config).save_pretrained(tmp_path)
    network = MMENGINE_MODELS.build(
        dict(
            type='HuggingFaceClassifier',
            _scope_='mmpretrain',
            model_name=str(tmp_path),
        )
    )
    assert list(taps_of(network).values()) == [
        *(
            each and tuple(f'model.{path}' for path in each.split())
            for each in expected
        ),
        None,
        None,
    ]
    check(network, training=False, size=64)


def test_there_are_enough():
    names = [line.partition('::')[0] for line in QUICK]
    assert len(names) >= 40
    assert all(
        names.count(package) >= 12
        for package in ('mmpretrain', 'mmdet', 'mmseg')
    )


def named_by(rows):
    return {name for row in rows for name in row.classes.split()}


def test_the_classes_exist():
    """Of a misspelt one the row would never be found."""
    known = set()
    for package in ('mmpretrain', 'mmdet', 'mmseg', 'mmdiffkd'):
        registry = import_module(f'{package}.registry').MODELS
        registry.import_from_location()
        for cls in registry.module_dict.values():
            for base in cls.__mro__ if isinstance(cls, type) else ():
                package = base.__module__.partition('.')[0]
                known |= {base.__name__, f'{package}.{base.__name__}'}
    for part in ('backbone', 'neck', 'head'):
        assert named_by(TABLE[part]) <= known


def test_a_row_without_taps_says_why():
    for rows in TABLE.values():
        for row in rows:
            taps = row.last_map or row.pyramid or row.logits
            assert bool(taps) != bool(row.reason), row.classes


def classifier(**changes):
    model = tiny_recipes.classifier(**changes)
    return MMENGINE_MODELS.build(model)


def test_a_class_of_ones_own():
    network = classifier()

    class Derived(type(network.backbone)):
        pass

    class Overriding(Derived):
        def forward(self, images):
            return super().forward(images)[::-1]

    expected = taps_of(network)
    assert expected['last_map'] == ('backbone[-1]',)
    assert expected['pyramid'] == tuple(
        f'backbone.layer{number}' for number in (1, 2, 3)
    )
    network.backbone.__class__ = Derived
    assert taps_of(network) == expected
    network.backbone.__class__ = Overriding
    assert taps_of(network) == NOTHING | dict(logits=('head.fc',))
    assert row_of(network.backbone, BACKBONES) is None


def test_what_is_not_known():
    assert taps_of(nn.Linear(2, 2)) == NOTHING
    network = nn.Module()
    network.backbone = nn.Sequential(nn.Conv2d(3, 4, 1))
    network.head = nn.Linear(4, 2)
    assert taps_of(network) == NOTHING


def test_a_vision_transformer_says_what_it_returns():
    recipe = tiny_recipes.transformer()
    recipe['backbone']['out_type'] = 'featmap'
    network = MMENGINE_MODELS.build(recipe)
    assert taps_of(network)['last_map'] == ('backbone[-1]',)
    recipe['backbone'].update(out_type='raw', final_norm=False)
    network = MMENGINE_MODELS.build(recipe)
    assert taps_of(network)['last_map'] == ('backbone.layers.0',)


def test_a_neck_of_several_parts():
    config = load_config('mmdet::libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco')
    network = build_from_config(config)
    assert isinstance(network.neck, nn.Sequential)
    assert taps_of(network)['pyramid'] == ('neck[:]',)
