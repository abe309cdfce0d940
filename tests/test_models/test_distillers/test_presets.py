import re
import runpy

import pytest
import tiny_detectors
import tiny_recipes
import tiny_segmenters
from mmengine.registry import MODELS as MMENGINE_MODELS
from recipe_files import ROOT

from mmdiffkd.models.distillers.expansion import expand
from mmdiffkd.models.distillers.known_taps import MEANINGS
from mmdiffkd.models.distillers.presets import (
    BACKBONE,
    CLASSIFIER,
    DETR,
    ONE_STAGE,
    PRESETS,
    SEGMENTOR,
    SMALL,
    TWO_STAGE,
)
from mmdiffkd.models.distillers.spec import read_entry
from mmdiffkd.utils import load_config

STRUCTURES = {
    CLASSIFIER,
    SMALL,
    BACKBONE,
    ONE_STAGE,
    TWO_STAGE,
    DETR,
    SEGMENTOR,
}
LARGE, CIFAR = [(3, 224, 224)], [(3, 32, 32)]


def test_every_method_and_structure():
    pairs = [(p.method, s) for p in PRESETS for s in p.structures]
    assert len(set(pairs)) == len(pairs)
    assert {method for method, _ in pairs} == {
        *('diffkd', 'ddkd', 'kd', 'dkd', 'dist', 'mse', 'pkd', 'cwd'),
        *('fgd', 'mgd', 'reviewkd'),
    }
    for method in ('diffkd', 'mse'):
        assert {s for m, s in pairs if m == method} == STRUCTURES


@pytest.mark.parametrize('preset', PRESETS, ids=lambda p: p.source)
def test_entries_are_whole(preset):
    assert preset.source and preset.structures
    for name, entry in preset.entries.items():
        for place in entry['at'].split():
            assert re.sub(r'\[:\d\]$', '', place) in MEANINGS
        read_entry(name, {**entry, 'at': 'backbone'})


def build(model):
    return MMENGINE_MODELS.build(model)


def method(name):
    """The entries of a method file, without what is read off the networks."""
    path = ROOT / f'configs/_base_/methods/{name}.py'
    base = runpy.run_path(str(path))
    assert '_base_' not in base
    entries = base['distill']
    for entry in entries.values():
        entry.get('neck', {}).pop('feature', None)
    return entries


@pytest.mark.parametrize(
    'name, file, images',
    [
        ('diffkd', 'diffkd_in1k', LARGE),
        ('diffkd', 'diffkd_cifar100', CIFAR),
        ('kd', 'kd_in1k', LARGE),
        ('kd', 'kd_cifar100', CIFAR),
        ('dkd', 'dkd_beta-half_in1k', LARGE),
        ('dkd', 'dkd_beta8_cifar100', CIFAR),
        ('dist', 'dist_in1k', LARGE),
        ('dist', 'dist_cifar100', CIFAR),
    ],
)
def test_classifiers_are_as_in_the_configs(name, file, images):
    network = build(tiny_recipes.classifier())
    found = expand(name, network, network, images)
    assert found.entries == method(file)


def test_ddkd_is_as_in_the_configs():
    network = build(tiny_recipes.classifier())
    for images, file in (
        (LARGE, 'ddkd_beta-half_in1k'),
        (CIFAR, 'ddkd_beta8_cifar100'),
    ):
        config = load_config(ROOT / f'configs/_base_/methods/{file}.py')
        entries = expand('ddkd', network, network, images).entries
        assert entries == config.distill.to_dict()


@pytest.mark.parametrize(
    'name, file',
    [
        ('retinanet', 'retinanet-r101_retinanet-r50'),
        ('fcos', 'fcos-r101_fcos-r50'),
        ('faster', 'faster-rcnn-r101_faster-rcnn-r50'),
    ],
)
def test_detectors_are_as_in_the_configs(name, file):
    network = build(tiny_detectors.detector(name))
    config = load_config(
        ROOT / f'configs/diffkd/diffkd_fpn-reg_{file}_8xb2-2x_coco.py'
    )
    found = expand('diffkd', network, network, LARGE)
    assert found.entries == config.model.distill.to_dict()


def test_segmentors_are_as_in_the_configs():
    network = build(tiny_segmenters.segmenter('pspnet'))
    found = expand('diffkd', network, network, LARGE)
    assert found.entries == method('diffkd_cityscapes')
