"""Whole distillers: what is built trains a step, what is not says why."""

import inspect
import warnings
from collections.abc import Callable
from typing import NamedTuple

import pytest
import tiny_recipes
import torch
from fuzz_rules import JUNK, mostly, works_or_says_why
from hypothesis import given
from hypothesis import strategies as st
from mmpretrain.structures import DataSample

from mmdiffkd.models.distillers import Distiller, TeacherSpec
from mmdiffkd.registry import MODELS

MODELS.import_from_location()


class Kind(NamedTuple):
    """A kind of network, and what can be compared of it.

    Attributes:
        build (Callable): Gives its config for a width, channels of the
            images, and classes.
        maps (list): Taps that give maps, in whatever layout.
        vectors (list): Taps that give vectors.
        axes (list): Layouts that the maps may have.
        classes (int): Defaults to 2.
    """

    build: Callable[[int, int, int], dict]
    maps: list
    vectors: list
    axes: list = ['NCHW', 'NHWC', 'NC']
    classes: int = 2


def convolutions(base, channels, classes):
    """With group norm: on meta tensors batch norm costs ten times as much."""
    model = tiny_recipes.classifier(
        base, norm_cfg=dict(type='GN', num_groups=2), in_channels=channels
    )
    return with_head(model, channels, num_classes=classes)


def several_labels(base, channels, classes):
    return with_head(
        convolutions(base, channels, classes),
        channels,
        type='MultiLabelLinearClsHead',
        loss=dict(type='CrossEntropyLoss', use_sigmoid=True),
    )


def channels_last(base, channels, classes):
    """Its blocks work on (B, H, W, C), its output is pooled."""
    model = convolutions(base, channels, classes)
    widths = [base, 2 * base]
    model['backbone'] = dict(
        type='ConvNeXt',
        arch=dict(depths=[1, 1], channels=widths),
        in_channels=channels,
        stem_patch_size=2,
        out_indices=[1],
    )
    model['neck'] = None
    return with_head(model, channels, in_channels=widths[-1])


def tokens(base, channels, classes):
    """With a class token."""
    model = tiny_recipes.transformer()
    model['backbone']['in_channels'] = channels
    return with_head(model, channels, num_classes=classes)


def with_head(model, channels, **head):
    """Other keys of the head, and images of so many channels."""
    model['head'] |= head
    model['data_preprocessor'] |= dict(
        num_classes=model['head']['num_classes'],
        mean=[118.0] * channels,
        std=[58.0] * channels,
        to_rgb=channels == 3,
    )
    return model


MAPS = [
    'backbone[-1]',
    'backbone',
    'backbone.layer2.1',
    'backbone.layer3.1.relu@input[-1]',
    ['backbone[0]', 'backbone.layer3'],
]
VECTORS = ['neck[1]', 'head.fc', ['head.fc', 'neck[0]'], 'head.fc@input']
KINDS = {
    'plain': Kind(convolutions, MAPS, VECTORS),
    'several labels': Kind(several_labels, MAPS, VECTORS, classes=3),
    'one channel': Kind(several_labels, MAPS, ['head.fc', 'head'], classes=1),
    'channels last': Kind(
        channels_last,
        [
            'backbone.stages.1',
            'backbone.stages.0.0.norm',
            'backbone.stages.1.0.pointwise_conv2',
            ['backbone.stages.0', 'backbone.stages.1.0.pointwise_conv1'],
            'backbone.stages.1.0.act@input',
        ],
        ['backbone[-1]', 'backbone.norm1', 'head.fc'],
    ),
    'tokens': Kind(
        tokens,
        [
            'backbone.ln1',
            'backbone.layers.0',
            'backbone.layers.0.attn',
            'backbone.patch_embed[0]',
            'backbone.layers.0.ln1@input',
        ],
        ['backbone[-1]', 'head', 'head.layers.head', 'head.layers.head@input'],
        ['NLC', 'NCL', 'NC'],
    ),
}
# The odd ones are rarer.
KIND = st.sampled_from(['plain', 'plain', *KINDS])
# Of the images.
CHANNELS = st.sampled_from([3, 3, 3, 3, 1, 4])


def teacher(kind, base, channels=3):
    kind = KINDS[kind]
    model = kind.build(base, channels, kind.classes)
    config = dict(model=model, default_scope='mmpretrain')
    return dict(config=config, checkpoint=None)


BAD = [
    'backbone[5]',
    'backbone[0:9]',
    'backbone[::0]',
    'backbone.layer3[0]',
    'head',
    'head.fcs',
    'data_preprocessor',
    'backbone.drop_path',
    'head.loss_module',
    'backbone.conv1@input',
    '@input',
    'a b',
    [],
    [None],
]
BAD_TAPS = st.one_of(st.sampled_from(BAD), JUNK)


def arguments(cls):
    """Some of the arguments of a neck or loss, some of them sensible."""
    values = [0, 1, 2, 8, 0.5, -1, True, False, 'map', 'vector', None]
    return st.fixed_dictionaries(
        {},
        optional={
            name: mostly(
                st.sampled_from(
                    [*values, p.default]
                    if p.default is not p.empty
                    else values
                )
            )
            for name, p in inspect.signature(cls).parameters.items()
            if p.kind is not p.VAR_KEYWORD and name != 'init_cfg'
        },
    )


def classes(folder):
    return {
        name: cls
        for name, cls in sorted(MODELS.module_dict.items())
        if cls.__module__.startswith(f'mmdiffkd.models.{folder}.')
    }


@st.composite
def parts(draw, folder):
    """A neck's or a loss's configuration, in every second case its default."""
    known = classes(folder)
    kind = draw(st.sampled_from(list(known)))
    changes = st.one_of(st.just({}), arguments(known[kind]))
    wrong = st.dictionaries(st.sampled_from(['type', 'a', 'weight']), JUNK)
    return {'type': kind} | draw(changes) | draw(mostly(st.just({}), wrong))


SETTINGS = st.dictionaries(
    st.sampled_from(['warmup', 'stop', 'by_epoch', 'start']), JUNK, max_size=2
)
AXES = st.sampled_from(['NCHW', 'NHWC', 'NLC', 'NCL', 'NC'])
#: What an entry may have, and in how many of ten cases it does: the more a
#: key is of use, the more often.
OPTIONAL = {
    'neck': (6, mostly(parts('necks'))),
    'weight': (2, mostly(st.sampled_from([0, 1, 0.5]))),
    'schedule': (
        1,
        mostly(st.just({'warmup': 2, 'stop': 3}), st.one_of(SETTINGS, JUNK)),
    ),
    'shared': (2, mostly(st.just(False), st.one_of(st.just(True), JUNK))),
    'teacher_head': (
        6,
        mostly(st.sampled_from(['head.fc', 'head']), BAD_TAPS),
    ),
    'activation': (1, mostly(st.sampled_from(['softmax', 'sigmoid']))),
    'wieght': (0, JUNK),
}


@st.composite
def layouts(draw, axes):
    """What an entry says of axes and tokens, of both networks or of each."""
    values = {
        'layout': mostly(st.sampled_from(axes), st.one_of(AXES, JUNK)),
        'prefix_tokens': mostly(st.sampled_from([0, 1, 2])),
    }
    said = {}
    for key in draw(st.sets(st.sampled_from(list(values)))):
        sides = [key], [f'student_{key}', f'teacher_{key}']
        mixed = st.sampled_from([[key, sides[1][0]], sides[1][:1]])
        for name in draw(mostly(st.sampled_from(sides), mixed)):
            said[name] = draw(values[key])
    return said


@st.composite
def entries(draw, student, teacher):
    """An entry for two kinds of networks: most keys as they should be."""
    student, teacher = KINDS[student], KINDS[teacher]
    of = draw(st.sampled_from(['maps', 'vectors']))
    taps = [
        mostly(st.sampled_from(getattr(kind, of)), BAD_TAPS)
        for kind in (student, teacher)
    ]
    entry = {'loss': draw(mostly(parts('losses')))}
    if student is teacher and draw(st.integers(0, 3)):
        entry['at'] = draw(taps[0])
    else:
        entry |= dict(student_at=draw(taps[0]), teacher_at=draw(taps[1]))
    for key, (share, values) in OPTIONAL.items():
        if draw(st.integers(0, 9)) < share:
            entry[key] = draw(values)
    if draw(st.integers(0, 9)) < 3:
        axes = student.axes if of == 'maps' else ['NC']
        entry |= draw(layouts(axes))
    return entry


NAMES = mostly(
    st.sampled_from(['feature', 'logits', 'a1']),
    st.sampled_from(['step', 'my_loss', 'A', '', 'forward', 'type', 1, None]),
)
WRONG_SIZES = [3, 0, -16, 1.5, '16', (16,), (16, 0), True, [16, '']]


@st.composite
def shapes(draw, channels):
    """What a distiller is told of its images, if anything."""
    values = {
        'input_size': mostly(
            st.sampled_from([16, (16, 16), (16, 24)]),
            st.sampled_from(WRONG_SIZES),
        ),
        'input_shape': mostly(
            st.sampled_from([(channels, 16, 16), [channels, 16, 24]]),
            st.sampled_from(
                [*WRONG_SIZES, (2, channels, 16, 16), (2, 16, 16)]
            ),
        ),
    }
    keys = mostly(
        st.sampled_from([['input_size'], ['input_shape']]),
        st.sampled_from([list(values), []]),
    )
    return {key: draw(values[key]) for key in draw(keys)}


@st.composite
def distillers(draw):
    """The arguments of a distiller, and the channels of its images."""
    student = draw(KIND)
    # A teacher of another kind has other taps.
    other = draw(mostly(st.just(student), KIND))
    channels = draw(CHANNELS)
    entry = entries(student, other)
    named = st.dictionaries(NAMES, entry, min_size=1, max_size=1)
    return dict(
        student=KINDS[student].build(4, channels, KINDS[student].classes),
        teacher=teacher(other, draw(st.sampled_from([4, 6])), channels),
        distill=draw(mostly(named)),
        **draw(shapes(channels)),
    ), channels


def train_a_step(model, channels):
    """What a runner does: initialise, prepare, and train one iteration."""
    model.init_weights()
    model.train()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(2, channels, 16, 16, generator=generator)
    classes = model.student.head.num_classes
    samples = []
    for i in range(2):
        metainfo = dict(sample_idx=i, img_shape=(16, 16), num_classes=classes)
        samples.append(DataSample(metainfo=metainfo).set_gt_label(i % classes))
    model.allocate(8, torch.tensor([0, 1] * 4))
    model.prepare(lambda: iter([inputs]))
    model.set_progress(0, 0)
    losses = model.loss(inputs, samples)
    model.parse_losses(losses)[0].backward()


@pytest.mark.slow
@given(distillers())
def test_distiller(case):
    arguments, channels = case
    with warnings.catch_warnings(action='ignore'), works_or_says_why():
        train_a_step(Distiller(**arguments), channels)


CHANGES = st.dictionaries(
    st.sampled_from([*TeacherSpec.model_fields, 'a']),
    JUNK,
    max_size=2,
)


@pytest.mark.slow
@given(mostly(CHANGES.map(lambda changes: teacher('plain', 6) | changes)))
def test_teacher(config):
    student = KINDS['plain'].build(4, 3, 2)
    with warnings.catch_warnings(action='ignore'), works_or_says_why():
        Distiller(student, config, {}, input_size=16).init_weights()
