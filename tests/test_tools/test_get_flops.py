import json
import runpy
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools/analysis_tools/get_flops.py'


@pytest.fixture(scope='module')
def tool():
    return runpy.run_path(str(TOOL))


def run_main(tool, monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['get_flops.py', *arguments])
    tool['main']()


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


def test_multiply_adds_are_counted_once_and_by_image(tool):
    layer = nn.Conv2d(3, 5, 3, padding=1)
    inputs = torch.zeros(4, 3, 6, 7)
    macs = tool['count_macs'](lambda: layer(inputs), batch_size=4)
    assert macs == 5 * 3 * 3 * 3 * 6 * 7


def test_plain_config_by_hand(tool):
    costs = tool['get_costs'](Config(plain()), (8, 12))
    assert costs == {
        'shape': [8, 12],
        'deployed': {
            'parameters': (3 * 9 + 1) * 64 + (64 + 1) * 10,
            'macs': 3 * 9 * 64 * 8 * 12 + 64 * 10,
        },
    }


def test_distiller_by_hand(tool):
    """A 1 x 1 convolution is the neck; maps are pooled to 8 x 8."""
    neck = {'type': 'ProjectionNeck'}
    costs = tool['get_costs'](Config(distiller(neck)))
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


def test_shape_holds_for_the_necks_too(tool):
    config = Config(distiller({'type': 'ProjectionNeck'}))
    costs = tool['get_costs'](config, (32, 16))
    assert costs['entries']['entry']['macs'] == 64 * 64 * 16 * 8
    assert config.model.input_size == 16


def test_entry_without_a_neck_adds_the_teacher_alone(tool):
    config = distiller(None)
    costs = tool['get_costs'](Config(config))
    assert costs['entries'] == {'entry': {'parameters': 0, 'macs': 0}}
    assert costs['step_macs']['added'] == costs['teacher']['macs']


def test_diffkd_on_logits(tool):
    """Batch norm over vectors, in train mode, takes no batch of one."""
    neck = {'type': 'DiffKDNeck', 'feature': 'vector'}
    costs = tool['get_costs'](Config(distiller(neck, at='head.fc')))
    assert costs['teacher']['macs'] == costs['deployed']['macs']
    assert costs['entries']['entry']['macs'] > 0


def test_published_costs(tool):
    """ResNet-34 -> ResNet-18 with a latent of 1024 channels.

    Measured on the released code: 7.64 M and 23.3 M parameters, 1.11 G and
    0.10 G MACs an image (five denoising steps and the diffusion loss); the
    paper says 0.8 G for the five steps.
    """
    name = 'diffkd_backbone-logits_resnet34_resnet18_8xb32-b1_in1k.py'
    config = Config.fromfile(ROOT / 'configs/diffkd' / name)
    costs = tool['get_costs'](config)
    feature, logits = (costs['entries'][k] for k in ('feature', 'logits'))
    assert costs['deployed']['parameters'] == 11_689_512
    assert costs['deployed']['macs'] == pytest.approx(1.81e9, rel=5e-3)
    assert feature['parameters'] == pytest.approx(7.64e6, rel=1e-3)
    assert feature['macs'] == pytest.approx(1.11e9, rel=5e-3)
    assert logits['parameters'] == pytest.approx(23.3e6, rel=2e-3)
    assert logits['macs'] == pytest.approx(0.10e9, rel=3e-2)


def test_command(tool, tmp_path, monkeypatch, capsys):
    # A logger made in an earlier test would write to that test's stdout.
    monkeypatch.setattr(MMLogger, '_instance_dict', OrderedDict())
    config = tmp_path / 'config.py'
    text = Config(distiller({'type': 'ProjectionNeck'}))
    text.dump(config)
    run_main(tool, monkeypatch, str(config), '--json', '--shape', '32', '32')
    costs = json.loads(capsys.readouterr().out)
    assert costs['shape'] == [32, 32]
    assert costs['step_ratio'] > 1
    run_main(tool, monkeypatch, str(config))
    out = capsys.readouterr().out
    assert 'images of 16 x 16' in out
    assert "necks of 'entry', forward" in out
    assert 'times the arithmetic' in out


@pytest.mark.parametrize(
    'number, text',
    [(1_110_000_000, '1.11 G'), (44_500, '44.5 k'), (0, '0'), (7e6, '7 M')],
)
def test_readable(tool, number, text):
    assert tool['readable'](number) == text
