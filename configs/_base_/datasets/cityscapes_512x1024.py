# Cityscapes as DiffKD trains on it (Sec. 4.3): flip, scales from 0.5 to 2 and
# crops of 512 x 1024. mmseg's own recipe also distorts colours and bounds how
# much of a crop one class fills; neither is in the paper.
_base_ = 'mmseg::_base_/datasets/cityscapes.py'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(
        type='RandomResize',
        scale=(2048, 1024),
        ratio_range=(0.5, 2.0),
        keep_ratio=True,
    ),
    dict(type='RandomCrop', crop_size=(512, 1024)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=2,  # x 8 GPUs = 16
    dataset=dict(pipeline=train_pipeline),
)
