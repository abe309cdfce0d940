_base_ = [
    '../_base_/datasets/digit_scenes_cls.py',
    '../_base_/schedules/digit-scenes_20e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    type='ImageClassifier',
    # Three stages of two basic blocks, the first at half resolution.
    backbone=dict(
        type='ResNet_CIFAR',
        depth=18,
        num_stages=3,
        strides=(2, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(2, ),
        stem_channels=16,
        base_channels=32,
        zero_init_residual=False),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=128,
        loss=dict(type='CrossEntropyLoss')))
