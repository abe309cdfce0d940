from functools import partial
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmdiffkd.analysis.macs import (
    _cost,
    count_macs,
    count_parameters,
    count_state,
    get_costs,
    get_scaling,
    readable,
)
from mmdiffkd.models.losses import CRDLoss
from mmdiffkd.models.necks import DiffKDNeck

ROOT = Path(__file__).resolve().parents[2]


def plain():
    """A 3 x 3 convolution, 2 x 2 pooling and a linear layer."""
    return {
        'default_scope': 'mmpretrain',
        'model': {
            'type': 'ImageClassifier',
            'backbone': {
                'type': 'VGG',
                'depth': 11,
                'num_stages': 1,
                'dilations': (1,),
                'out_indices': (0,),
            },
            'neck': {'type': 'GlobalAveragePooling'},
            'head': {
                'type': 'LinearClsHead',
                'num_classes': 10,
                'in_channels': 64,
            },
        },
    }


def distiller(neck, loss='MSELoss', at='backbone[-1]'):
    return {
        'default_scope': 'mmpretrain',
        'model': {
            'type': 'mmdiffkd.Distiller',
            'student': plain()['model'],
            'teacher': {'config': plain(), 'checkpoint': None},
            'distill': {
                'entry': {'at': at, 'neck': neck, 'loss': {'type': loss}}
            },
            'input_size': 16,
        },
    }


def test_multiply_adds_are_counted_once_and_by_image():
    layer = nn.Conv2d(3, 5, 3, padding=1)
    inputs = torch.zeros(4, 3, 6, 7)
    macs = count_macs(lambda: layer(inputs), batch_size=4)
    assert macs == 5 * 3 * 3 * 3 * 6 * 7


def test_plain_config_by_hand():
    costs = get_costs(Config(plain()), (8, 12))
    assert costs == {
        'shape': [8, 12],
        'deployed': {
            'parameters': (3 * 9 + 1) * 64 + (64 + 1) * 10,
            'macs': 3 * 9 * 64 * 8 * 12 + 64 * 10,
        },
    }


def test_distiller_by_hand():
    """A 1 x 1 convolution is the neck; maps are pooled to 8 x 8."""
    neck = {'type': 'ProjectionNeck'}
    costs = get_costs(Config(distiller(neck)))
    backbone = 3 * 9 * 64 * 16 * 16
    assert costs['shape'] == [16, 16]
    assert costs['deployed']['macs'] == backbone + 64 * 10
    # The head holds no tap, so that the teacher's is not run.
    assert costs['teacher']['macs'] == backbone
    assert costs['entries'] == {
        'entry': {'parameters': 64 * 65, 'macs': 64 * 64 * 8 * 8}
    }
    own, added = 3 * (backbone + 640), backbone + 3 * 64 * 64 * 8 * 8
    assert costs['step_macs'] == {'student': own, 'added': added}
    assert costs['step_ratio'] == pytest.approx(1 + added / own)


def test_shape_holds_for_the_necks_too():
    config = Config(distiller({'type': 'ProjectionNeck'}))
    costs = get_costs(config, (32, 16))
    assert costs['entries']['entry']['macs'] == 64 * 64 * 16 * 8
    assert config.model.input_size == 16


def test_one_number_stands_for_both_sides():
    for config in (distiller(None), plain()):
        costs = get_costs(Config(config), 32)
        assert costs == get_costs(Config(config), (32, 32))
        assert costs['shape'] == [32, 32]


def test_entry_without_a_neck_adds_the_teacher_alone():
    config = distiller(None)
    costs = get_costs(Config(config))
    assert costs['entries'] == {'entry': {'parameters': 0, 'macs': 0}}
    assert costs['step_macs']['added'] == costs['teacher']['macs']


def test_diffkd_on_logits():
    """Batch norm over vectors, in train mode, takes no batch of one."""
    neck = {'type': 'DiffKDNeck', 'feature': 'vector'}
    costs = get_costs(Config(distiller(neck, at='head.fc')))
    assert costs['teacher']['macs'] == costs['deployed']['macs']
    assert costs['entries']['entry']['macs'] > 0


def test_published_costs():
    """ResNet-34 -> ResNet-18 with a latent of 1024 channels.

    Measured on the released code: 7.64 M and 23.3 M parameters, 1.11 G and
    0.10 G MACs an image (five denoising steps and the diffusion loss); the
    paper says 0.8 G for the five steps.
    """
    name = 'diffkd_backbone-logits_resnet34_resnet18_8xb32-100e_in1k.py'
    config = Config.fromfile(ROOT / 'configs/diffkd' / name)
    costs = get_costs(config)
    feature, logits = (costs['entries'][k] for k in ('feature', 'logits'))
    assert costs['deployed']['parameters'] == 11_689_512
    assert costs['deployed']['macs'] == pytest.approx(1.81e9, rel=5e-3)
    assert feature['parameters'] == pytest.approx(7.64e6, rel=1e-3)
    assert feature['macs'] == pytest.approx(1.11e9, rel=5e-3)
    assert logits['parameters'] == pytest.approx(23.3e6, rel=2e-3)
    assert logits['macs'] == pytest.approx(0.10e9, rel=3e-2)


def random_neck(student, teacher, size, **settings):
    """Parameters and multiply-adds an image of a neck."""
    neck = DiffKDNeck(student, teacher, **settings)
    tensors = [torch.zeros(2, c, *size) for c in (student, teacher)]
    return (
        count_parameters(neck),
        count_macs(lambda: neck(*tensors)),
    )


@pytest.mark.parametrize('c, s, t', [(64, 16, 40), (128, 64, 32)])
@pytest.mark.parametrize('n', [1, 5])
def test_growth_on_paper(c, s, t, n):
    """The formulas of docs/scaling.md."""
    p = 3 * 4
    count = partial(random_neck, size=(3, 4), num_inference_steps=n)
    square = 4.515625 * c**2
    walk = (3.125 * (n + 1) + 1.390625) * c**2 * p + 2 * c
    assert count(s, t, latent_channels=c) == (
        square + (s + 2 * t + 1304.75) * c + t + 2,
        walk + (s + 2 * t) * c * p,
    )
    assert count(s, c) == (
        square + (s + 1301.75) * c + 2,
        walk + s * c * p,
    )
    assert count(c, c, size=(), feature='vector') == (
        22 * c**2 + 1323 * c + 2,
        (16 * (n + 1) + 6) * c**2 + 2 * c,
    )
    embeddings = count_parameters(CRDLoss(s, t))
    assert embeddings == 128 * (s + t + 2)


@pytest.mark.parametrize(
    'optimizer, numbers',
    [
        (dict(type='SGD', lr=0.1), 0),
        (dict(type='SGD', lr=0.1, momentum=0.9), 1),
        (dict(type='AdamW', lr=0.1), 2),
    ],
)
def test_optimizers_state(optimizer, numbers):
    assert count_state(optimizer) == numbers


def test_several_gpus_by_hand():
    config = Config(distiller({'type': 'ProjectionNeck'}))
    config.optim_wrapper = dict(
        optimizer=dict(type='SGD', lr=0.1, momentum=0.9)
    )
    config.train_dataloader = dict(batch_size=3)
    costs = get_costs(config)
    student, neck = (3 * 9 + 1) * 64 + 65 * 10, 65 * 64
    assert costs['trained'] == {'student': student, 'necks': neck}
    assert costs['teacher']['parameters'] == student
    both = student + neck
    assert get_scaling(config, costs, 4) == {
        'gpus': 4,
        'images': 12,
        'sent': {
            'ddp': 2 * 3 * both,
            'student': 2 * 3 * student,
            'fsdp': 3 * (3 * student + 2 * neck),
        },
        'held': {
            'ddp': 4 * student + 12 * both,
            'zero2': 4 * student + 4 * both + 3 * both,
            'fsdp': 4 * student + 3 * both,
        },
        'macs': 3 * sum(costs['step_macs'].values()),
    }


def test_frozen_parameters_are_not_sent():
    config = Config(distiller({'type': 'ProjectionNeck'}))
    config.model.student.backbone.frozen_stages = 1
    costs = get_costs(config)
    assert costs['trained']['student'] == 65 * 10
    assert costs['deployed']['parameters'] > 65 * 10


@pytest.mark.parametrize(
    'number, text',
    [(1_110_000_000, '1.11 G'), (44_500, '44.5 k'), (0, '0'), (7e6, '7 M')],
)
def test_readable(number, text):
    assert readable(number) == text


def test_parts_of_a_parameter_are_counted():
    class Queries(nn.Module):
        def __init__(self):
            super().__init__()
            self.both = nn.Embedding(4, 8)
            self.layer = nn.Linear(4, 2)

        def forward(self):
            first, _ = torch.split(self.both.weight, 4, dim=1)
            return self.layer(first.unsqueeze(0).expand(2, -1, -1))

    module = Queries()
    # Two images, each of 4 queries of 4 numbers, to 2.
    assert _cost(module, module) == dict(parameters=42, macs=32)
    assert all(p.requires_grad for p in module.parameters())
