"""Whole distillers: what is built trains a step, what is not says why."""

import inspect
import warnings

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


def classifier(base):
    """With group norm: on meta tensors batch norm costs ten times as much."""
    return tiny_recipes.classifier(
        base, norm_cfg=dict(type='GN', num_groups=2)
    )


def teacher(base):
    config = dict(model=classifier(base), default_scope='mmpretrain')
    return dict(config=config, checkpoint=None)


MAPS = [
    'backbone[-1]',
    'backbone',
    'backbone.layer2.1',
    'backbone.layer3.1.relu@input[-1]',
    ['backbone[0]', 'backbone.layer3'],
]
VECTORS = ['neck[1]', 'head.fc', ['head.fc', 'neck[0]'], 'head.fc@input']
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
OPTIONAL = dict(
    neck=mostly(parts('necks')),
    weight=mostly(st.sampled_from([0, 1, 0.5])),
    schedule=mostly(
        st.just({'warmup': 2, 'stop': 3}), st.one_of(SETTINGS, JUNK)
    ),
    shared=mostly(st.just(False), st.one_of(st.just(True), JUNK)),
    teacher_head=mostly(st.just('head.fc'), BAD_TAPS),
    wieght=JUNK,
)


@st.composite
def entries(draw):
    """An entry: most keys as they should be."""
    taps = mostly(
        st.sampled_from(draw(st.sampled_from([MAPS, VECTORS]))), BAD_TAPS
    )
    entry = {'loss': draw(mostly(parts('losses')))}
    if draw(st.integers(0, 3)):
        entry['at'] = draw(taps)
    else:
        entry |= dict(student_at=draw(taps), teacher_at=draw(taps))
    # The more a key is of use, the more often it is there.
    for key, share in zip(OPTIONAL, (6, 2, 1, 2, 6, 0)):
        if draw(st.integers(0, 9)) < share:
            entry[key] = draw(OPTIONAL[key])
    return entry


NAMES = mostly(
    st.sampled_from(['feature', 'logits', 'a1']),
    st.sampled_from(['step', 'my_loss', 'A', '', 'forward', 'type', 1, None]),
)
DISTILL = mostly(st.dictionaries(NAMES, entries(), min_size=1, max_size=1))
SIZES = mostly(
    st.sampled_from([16, (16, 16), (16, 24)]),
    st.sampled_from([3, 0, -16, 1.5, '16', (16,), (16, 0), True, [16, '']]),
)


def train_a_step(model):
    """What a runner does: initialise, prepare, and train one iteration."""
    model.init_weights()
    model.train()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(2, 3, 16, 16, generator=generator)
    samples = []
    for i in range(2):
        metainfo = dict(sample_idx=i, img_shape=(16, 16))
        samples.append(DataSample(metainfo=metainfo).set_gt_label(i))
    model.allocate(8, torch.tensor([0, 1] * 4))
    model.prepare(lambda: iter([inputs]))
    model.set_progress(0, 0)
    losses = model.loss(inputs, samples)
    model.parse_losses(losses)[0].backward()


@pytest.mark.slow
@given(DISTILL, SIZES, st.sampled_from([4, 6]))
def test_distiller(distill, size, base):
    with warnings.catch_warnings(action='ignore'), works_or_says_why():
        train_a_step(
            Distiller(classifier(4), teacher(base), distill, input_size=size)
        )


CHANGES = st.dictionaries(
    st.sampled_from([*TeacherSpec.model_fields, 'a']),
    JUNK,
    max_size=2,
)


@pytest.mark.slow
@given(mostly(CHANGES.map(lambda changes: teacher(6) | changes)))
def test_teacher(config):
    with warnings.catch_warnings(action='ignore'), works_or_says_why():
        Distiller(classifier(4), config, {}, input_size=16).init_weights()
