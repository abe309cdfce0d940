"""Recipes so small that the real runner trains them in a second."""

from pathlib import Path

from generated_data import write_class_folders
from mmengine.config import Config

SIZE = 16


def classifier(base: int = 4, **backbone) -> dict:
    """A residual network of three stages of a block, for two classes."""
    return dict(
        type='ImageClassifier',
        _scope_='mmpretrain',
        backbone=dict(
            type='ResNet_CIFAR',
            depth=18,
            num_stages=3,
            strides=(1, 2, 2),
            dilations=(1, 1, 1),
            out_indices=(1, 2),
            stem_channels=base,
            base_channels=base,
            **backbone,
        ),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(
            type='LinearClsHead',
            num_classes=2,
            in_channels=4 * base,
            loss=dict(type='CrossEntropyLoss'),
        ),
        data_preprocessor=dict(
            type='ClsDataPreprocessor',
            num_classes=2,
            mean=[120.0, 118.0, 110.0],
            std=[60.0, 58.0, 57.0],
            to_rgb=True,
        ),
    )


def teacher(base: int = 6, checkpoint: str | None = None, **changes) -> dict:
    """Arguments of a small teacher."""
    config = dict(model=classifier(base), default_scope='mmpretrain')
    return dict(config=config, checkpoint=checkpoint, **changes)


def feature_entry(**changes) -> dict:
    """DiffKD on the last feature map."""
    return {
        'at': 'backbone[-1]',
        'neck': dict(type='DiffKDNeck', latent_channels=8),
        'loss': dict(type='MSELoss'),
        **changes,
    }


def logits_entry(**changes) -> dict:
    """DiffKD on the logits."""
    return {
        **({} if 'student_at' in changes else {'at': 'head.fc'}),
        'neck': dict(type='DiffKDNeck', feature='vector'),
        'loss': dict(type='KLDivergence'),
        **changes,
    }


def distiller(student: dict | None = None, **changes) -> dict:
    """A distiller's configuration with one entry."""
    return {
        'type': 'mmdiffkd.Distiller',
        'student': student or classifier(),
        'teacher': teacher(),
        'distill': dict(feature=feature_entry()),
        'input_size': SIZE,
        **changes,
    }


def recipe(
    root: Path,
    model: dict,
    epochs: int = 2,
    images: int = 8,
    batch_size: int = 4,
    num_workers: int = 0,
    **changes,
) -> Config:
    """A whole training recipe on generated images.

    Args:
        root (Path): Where images and the work directory go.
        model (dict): The model.
        epochs (int): Epochs to train. Defaults to 2.
        images (int): Training images, half of either class. Defaults to 8.
        batch_size (int): Defaults to 4.
        num_workers (int): Data workers, persistent. Defaults to 0.
        **changes: Top-level keys to merge in.
    """
    data = root / 'data'
    if not data.exists():
        write_class_folders(data, images_per_class=images // 2, size=(20, 20))
    load = [dict(type='LoadImageFromFile')]
    loader = dict(
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )
    config = Config(
        dict(
            default_scope='mmpretrain',
            model=model,
            work_dir=str(root / 'work'),
            train_dataloader=dict(
                batch_size=batch_size,
                dataset=dict(
                    type='CustomDataset',
                    data_root=str(data),
                    data_prefix='train',
                    pipeline=[
                        *load,
                        dict(type='RandomCrop', crop_size=SIZE),
                        dict(type='RandomFlip', prob=0.5),
                        dict(type='PackInputs'),
                    ],
                ),
                sampler=dict(type='DefaultSampler', shuffle=True),
                **loader,
            ),
            val_dataloader=dict(
                batch_size=batch_size,
                dataset=dict(
                    type='CustomDataset',
                    data_root=str(data),
                    data_prefix='val',
                    pipeline=[
                        *load,
                        dict(type='CenterCrop', crop_size=SIZE),
                        dict(type='PackInputs'),
                    ],
                ),
                sampler=dict(type='DefaultSampler', shuffle=False),
                **loader,
            ),
            val_evaluator=dict(type='Accuracy', topk=1),
            train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=1),
            val_cfg=dict(),
            optim_wrapper=dict(
                optimizer=dict(
                    type='SGD', lr=0.05, momentum=0.9, weight_decay=1e-3
                )
            ),
            default_hooks=dict(
                logger=dict(type='LoggerHook', interval=2),
                checkpoint=dict(type='CheckpointHook', interval=1),
            ),
            visualizer=dict(
                type='UniversalVisualizer',
                vis_backends=[dict(type='LocalVisBackend')],
            ),
            randomness=dict(seed=3),
            log_level='WARNING',
            env_cfg=dict(dist_cfg=dict(backend='gloo')),
        )
    )
    config.merge_from_dict(changes)
    return config


#: The lines that turn a recipe's optimizer and hooks into a distiller's.
DISTILL_LINES = dict(
    optim_wrapper=dict(constructor='mmdiffkd.OptimWrapperConstructor'),
    default_hooks=dict(
        checkpoint=dict(type='mmdiffkd.CheckpointHook'),
        distill=dict(type='mmdiffkd.DistillHook'),
    ),
)
