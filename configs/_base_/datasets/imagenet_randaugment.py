# ImageNet with RandAugment and random erasing beside crop and flip: strategy
# B2 in Table 1 of DiffKD. Strengths are the released code's: rand-m9-mstd0.5,
# and erasing by noise with probability 0.2. mmpretrain has RandAugment's
# increasing policy only; the released string names the plain one.
_base_ = './imagenet_crop-flip.py'

bgr_mean = _base_.data_preprocessor.mean[::-1]
bgr_std = _base_.data_preprocessor.std[::-1]

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, backend='pillow'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandAugment',
        policies='timm_increasing',
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(
            pad_val=[round(x) for x in bgr_mean], interpolation='bilinear'
        ),
    ),
    dict(
        type='RandomErasing',
        erase_prob=0.2,
        mode='rand',
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        fill_color=bgr_mean,
        fill_std=bgr_std,
    ),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=96,  # x 8 GPUs = 768
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(batch_size=96)
test_dataloader = val_dataloader
