"""The page docs/get_started.md does what it says, on a few small images."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from mmengine.registry import MODELS
from PIL import Image

from mmdiffkd.utils import load_config, read_checkpoint

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / 'docs/get_started.md').read_text()
SIZE = 64
# What the page says, and what these tests make of it.
FEWER = {
    # No weights from elsewhere: a random teacher.
    'https://download.openmmlab.com/mmdetection/v2.0/retinanet/'
    'retinanet_r50_fpn_1x_coco/retinanet_r50_fpn_1x_coco_20200130-c2398f9e'
    '.pth': 'None',
    'epoch_12': 'epoch_2',
    'epoch_10': 'epoch_2',
    'max_epochs=10': 'max_epochs=2',
    'iter_4000': 'iter_4',
    '=4000': '=4',
    '=1000': '=2',
}
# What a stock config says, and the same for small images in this process.
SMALLER = {
    r'\b1333,\s+800\b': '256, 256',
    r'\b512,\s+1024\b': '64, 64',
    r'\b2048,\s+1024\b': '128, 64',
    r'scale=224': 'scale=64',
    r'crop_size=224': 'crop_size=64',
    r'max_epochs=12': 'max_epochs=2',
    r'num_workers=\d+': 'num_workers=0',
    r'persistent_workers=True': 'persistent_workers=False',
    r"type='CheckpointHook'": "type='CheckpointHook', max_keep_ckpts=1",
}


def replaced(text: str, table: dict[str, str]) -> str:
    for pattern, new in table.items():
        text = re.sub(pattern, new, text)
    return text


def section(title: str) -> str:
    (text,) = re.findall(
        rf'^## {re.escape(title)}\n(.*?)(?=^## |\Z)', PAGE, re.M | re.S
    )
    return replaced(text, FEWER)


def test_what_is_replaced_is_there():
    assert all(old in PAGE for old in FEWER)


def run(text: str) -> dict:
    """Do what a part of the page says, in its order.

    Code that begins with the name of a file is written to it. Stock configs
    become small ones. Shell commands run; other code runs here.
    """
    values = {}
    for kind, block in re.findall(r'^```(\w+)\n(.*?)^```', text, re.M | re.S):
        named = re.match(r'# (\S+\.py)\n', block)
        if kind == 'bash':
            env = {**os.environ, 'PYTHONPATH': os.getcwd()}
            subprocess.run(['bash', '-ec', block], check=True, env=env)
        elif named:
            write(Path(named[1]), block)
        elif kind == 'python':
            exec(block, values)
    return values


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    stock = re.search(r"_base_ = '(\w+::.+)'", text)
    if stock:
        config = load_config(stock[1])
        small = replaced(config.pretty_text, SMALLER)
        Path('small.py').write_text(small)
        text = text.replace(stock[1], '../small.py')
    path.write_text(text)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """What stands for the root of the repository and for torch's cache."""
    for name in ('tools', 'mmdiffkd'):
        (tmp_path / name).symlink_to(ROOT / name)
    cache = tmp_path / 'torch/hub/checkpoints'
    cache.mkdir(parents=True)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    bin_folder = Path(sys.executable).parent
    monkeypatch.setenv('PATH', str(bin_folder), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield cache
    for name in ('torch', 'work_dirs'):
        shutil.rmtree(name, ignore_errors=True)
    for file in tmp_path.glob('*.pth'):
        file.unlink()


def cache_torchvision(cache: Path, *names: str) -> None:
    """Random weights in place of those that torchvision would fetch.

    A detector keeps their batch statistics: those of noise, so that
    activations do not grow from block to block.
    """
    for name in names:
        network = torchvision.models.get_model(name)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        network(torch.randn(8, 3, 128, 128))
        weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
        file = weights.url.rpartition('/')[2]
        torch.save(network.state_dict(), cache / file)


def save_image(path: Path, shape: tuple = (SIZE, SIZE, 3), high: int = 256):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(path.name))
    Image.fromarray(rng.integers(0, high, shape, 'uint8')).save(path)


def is_plain_student(exported: str, run: str) -> None:
    """The exported file holds the weights that the run has trained."""
    (checkpoint,) = Path('work_dirs', run).glob('*_[0-9]*.pth')
    expected = torch.load(checkpoint, weights_only=False)['state_dict']
    found = read_checkpoint(exported)
    assert list(found['state_dict']) == list(expected)
    assert all(
        torch.equal(tensor, expected[name])
        for name, tensor in found['state_dict'].items()
    )
    assert not any(name.startswith('distill.') for name in expected)
    assert (Path('work_dirs', run) / 'student.py').is_file()


@pytest.mark.slow
def test_detection(folder):
    cache_torchvision(folder, 'resnet18', 'resnet50')
    described, boxes = [], []
    for i in range(4):
        save_image(Path(f'data/mine/images/{i}.jpg'))
        described.append(
            dict(id=i, file_name=f'{i}.jpg', width=SIZE, height=SIZE)
        )
        boxes.append(
            dict(
                id=i,
                image_id=i,
                category_id=i % 2,
                bbox=[4, 6, 34, 40],
                area=34 * 40,
                iscrowd=0,
            )
        )
    categories = [dict(id=i, name=name) for i, name in enumerate(CLASSES)]
    content = dict(images=described, annotations=boxes, categories=categories)
    Path('data/mine/annotations.json').write_text(json.dumps(content))
    run(section('Three minutes: a stock RetinaNet on 20 images'))
    assert Path('work_dirs/diffkd_student/epoch_2.pth').is_file()
    values = run(section('Detection'))
    is_plain_student('detector.pth', 'distilled')
    assert {'bboxes', 'scores', 'labels'} <= {*values['found']}


CLASSES = 'cat', 'dog'


@pytest.mark.slow
def test_classification(folder):
    cache_torchvision(folder, 'resnet18', 'resnet50')
    for name in CLASSES:
        for i in range(4):
            save_image(Path(f'data/animals/train/{name}/{i}.jpg'))
            save_image(Path(f'data/animals/val/{name}/{i}.jpg'))
            save_image(Path(f'data/animals/named/{name}_{i}.jpg'))
    values = run(section('Classification'))
    is_plain_student('classifier.pth', 'diffkd_student')
    assert values['found']['pred_class'] in CLASSES
    saved = load_config('work_dirs/diffkd_named/student.py')
    assert saved.train_dataloader.dataset.type == 'NamedImages'


@pytest.mark.slow
def test_segmentation(folder):
    for depth, name in [(18, 'b5776b93'), (50, '2cccc1ad')]:
        backbone = MODELS.build(dict(type='mmseg.ResNetV1c', depth=depth))
        file = f'resnet{depth}_v1c-{name}.pth'
        torch.save(backbone.state_dict(), folder / file)
    root = Path('data/streets')
    for split in ('train', 'val'):
        for i in range(4):
            name = f'{split}/a/{i}'
            save_image(root / f'leftImg8bit/{name}_leftImg8bit.png')
            labels = root / f'gtFine/{name}_gtFine_labelTrainIds.png'
            save_image(labels, (SIZE, SIZE), high=2)
    values = run(section('Segmentation'))
    is_plain_student('segmentor.pth', 'diffkd_student')
    assert values['found'].shape == (SIZE, SIZE)
