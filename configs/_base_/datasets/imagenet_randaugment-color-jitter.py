# ImageNet with RandAugment, random erasing and ColorJitter beside crop and
# flip: strategy B3 in Table 1 of DiffKD. Its Mixup and CutMix work on batches
# and stand in the model's `train_cfg`. Bicubic resizing, the jitter of 0.4 and
# the erasing probability of 0.25 are the released code's, which, however,
# leaves ColorJitter out wherever RandAugment is on; the paper lists both.
_base_ = './imagenet_crop-flip.py'

bgr_mean = _base_.data_preprocessor.mean[::-1]
bgr_std = _base_.data_preprocessor.std[::-1]

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='RandomResizedCrop',
        scale=224,
        backend='pillow',
        interpolation='bicubic',
    ),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandAugment',
        policies='timm_increasing',
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(
            pad_val=[round(x) for x in bgr_mean], interpolation='bicubic'
        ),
    ),
    dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4),
    dict(
        type='RandomErasing',
        erase_prob=0.25,
        mode='rand',
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        fill_color=bgr_mean,
        fill_std=bgr_std,
    ),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='ResizeEdge',
        scale=256,
        edge='short',
        backend='pillow',
        interpolation='bicubic',
    ),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=64,  # x 16 GPUs = 1024
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(batch_size=64, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
