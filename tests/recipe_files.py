"""Recipes as files, for the tools: generated images, two classes."""

import runpy
import sys
from pathlib import Path

from generated_data import write_class_folders

ROOT = Path(__file__).resolve().parents[1]

PLAIN = """
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='VGG',
        depth=11,
        num_stages=1,
        dilations=(1,),
        out_indices=(0,),
        norm_cfg=dict(type='BN'),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead', num_classes=2, in_channels=64, topk=(1,)
    ),
)
data_preprocessor = dict(num_classes=2, mean=[127.0] * 3, std=[60.0] * 3)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(16, 16)),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    dataset=dict(
        type='CustomDataset',
        data_root={data_root!r},
        data_prefix='train',
        pipeline=train_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=2,
    num_workers=0,
    dataset=dict(
        type='CustomDataset',
        data_root={data_root!r},
        data_prefix='val',
        pipeline=train_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='Accuracy', topk=(1,))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
train_cfg = dict(by_epoch=True, max_epochs=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=4)
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', interval=1),
    visualization=dict(type='VisualizationHook', enable=False),
)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)
randomness = dict(seed=0)
"""

DISTILLER = """
_base_ = './plain.py'
model = dict(
    _delete_=True,
    type='mmdiffkd.Distiller',
    student=_base_.model,
    teacher=dict(config={plain!r}, checkpoint={teacher!r}),
    distill=dict(
        feature=dict(
            at='backbone[-1]',
            neck=dict(type='DiffKDNeck', latent_channels=16),
            loss=dict(type='MSELoss'),
        )
    ),
    input_size=16,
)
optim_wrapper = dict(constructor='mmdiffkd.OptimWrapperConstructor')
default_hooks = dict(
    checkpoint=dict(type='mmdiffkd.CheckpointHook'),
    distill=dict(type='mmdiffkd.DistillHook'),
)
"""

#: The same in MMEngine's new style: classes for types, and no scope.
LAZY_PLAIN = """
from mmcv.transforms import LoadImageFromFile, Resize
from mmengine.dataset import DefaultSampler
from mmengine.hooks import CheckpointHook
from mmengine.visualization import LocalVisBackend
from mmpretrain.datasets import CustomDataset, PackInputs
from mmpretrain.engine import VisualizationHook
from mmpretrain.evaluation import Accuracy
from mmpretrain.models import (
    VGG,
    ClsDataPreprocessor,
    CrossEntropyLoss,
    GlobalAveragePooling,
    ImageClassifier,
    LinearClsHead,
)
from mmpretrain.models.tta import AverageClsScoreTTA
from mmpretrain.visualization import UniversalVisualizer
from torch.nn import BatchNorm2d
from torch.optim import SGD

model = dict(
    type=ImageClassifier,
    backbone=dict(
        type=VGG,
        depth=11,
        num_stages=1,
        dilations=(1,),
        out_indices=(0,),
        norm_cfg=dict(type=BatchNorm2d),
    ),
    neck=dict(type=GlobalAveragePooling),
    head=dict(
        type=LinearClsHead,
        num_classes=2,
        in_channels=64,
        topk=(1,),
        loss=dict(type=CrossEntropyLoss),
    ),
)
data_preprocessor = dict(
    type=ClsDataPreprocessor, num_classes=2, mean=[127.0] * 3, std=[60.0] * 3
)
pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=Resize, scale=(16, 16)),
    dict(type=PackInputs),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    dataset=dict(
        type=CustomDataset,
        data_root={data_root!r},
        data_prefix='train',
        pipeline=pipeline,
    ),
    sampler=dict(type=DefaultSampler, shuffle=True),
)
val_dataloader = dict(
    batch_size=2,
    num_workers=0,
    dataset=dict(
        type=CustomDataset,
        data_root={data_root!r},
        data_prefix='val',
        pipeline=pipeline,
    ),
    sampler=dict(type=DefaultSampler, shuffle=False),
)
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type=Accuracy, topk=(1,))
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.01))
train_cfg = dict(by_epoch=True, max_epochs=1)
val_cfg = test_cfg = dict()
tta_model = dict(type=AverageClsScoreTTA)
default_hooks = dict(
    checkpoint=dict(type=CheckpointHook, interval=1),
    visualization=dict(type=VisualizationHook, enable=False),
)
visualizer = dict(
    type=UniversalVisualizer, vis_backends=[dict(type=LocalVisBackend)]
)
randomness = dict(seed=0)
"""

LAZY_DISTILLER = """
from mmengine.config import read_base

with read_base():
    from .lazy_plain import *

from mmdiffkd.engine import (
    CheckpointHook,
    DistillHook,
    OptimWrapperConstructor,
)
from mmdiffkd.models import Distiller
from mmdiffkd.models.losses import MSELoss
from mmdiffkd.models.necks import DiffKDNeck

model = dict(
    type=Distiller,
    student=model,
    teacher=dict(config={plain!r}, checkpoint=None),
    distill=dict(
        feature=dict(
            at='backbone[-1]',
            neck=dict(type=DiffKDNeck, latent_channels=16),
            loss=dict(type=MSELoss),
        )
    ),
    input_size=16,
)
optim_wrapper.update(constructor=OptimWrapperConstructor)
default_hooks.update(
    checkpoint=dict(type=CheckpointHook), distill=dict(type=DistillHook)
)
"""


def write_recipe(folder: Path, teacher: str | None = None) -> Path:
    """Write generated images, ``plain.py`` and ``distiller.py``.

    Args:
        folder (Path): Where to.
        teacher (str, optional): The teacher's checkpoint. Defaults to None:
            a random teacher.

    Returns:
        Path: ``folder``.
    """
    data = write_class_folders(folder / 'data')
    plain = folder / 'plain.py'
    plain.write_text(PLAIN.format(data_root=str(data)))
    (folder / 'distiller.py').write_text(
        DISTILLER.format(plain=str(plain), teacher=teacher)
    )
    return folder


def write_lazy_recipe(folder: Path) -> Path:
    """Write generated images, ``lazy_plain.py`` and ``lazy_distiller.py``.

    Args:
        folder (Path): Where to.

    Returns:
        Path: ``folder``.
    """
    data = write_class_folders(folder / 'data')
    plain = folder / 'lazy_plain.py'
    plain.write_text(LAZY_PLAIN.format(data_root=str(data)))
    (folder / 'lazy_distiller.py').write_text(
        LAZY_DISTILLER.format(plain=str(plain))
    )
    return folder


def load_tool(name: str) -> dict:
    """The names that a tool defines, by its path under ``tools/``."""
    return runpy.run_path(str(ROOT / 'tools' / name))


def run_tool(monkeypatch, name: str, *arguments: object) -> None:
    """Run a tool in this process, as its command would."""
    monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
    load_tool(name)['main']()
