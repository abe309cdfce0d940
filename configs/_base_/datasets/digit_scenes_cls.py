# Digit scenes for classification: 4,000 / 1,000 / 2,000 images of 32 x 32
# pixels in ten classes, written by tools/dataset_converters/digit_scenes.py.
dataset_type = 'CustomDataset'
data_root = 'data/digit_scenes/cls'

# What `val` and `test` evaluate on: `test` for the figures that are reported;
# `tuning` wherever a setting is chosen (its digits are in neither of the
# other two): --cfg-options val_dataloader.dataset.data_prefix=tuning
evaluated_split = 'test'

data_preprocessor = dict(
    num_classes=10,
    mean=[67.40, 68.57, 62.75],
    std=[54.76, 46.45, 48.76],
    to_rgb=True,
)

# No flip: a mirrored digit is another sign.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomCrop', crop_size=32, padding=2),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=64,
    num_workers=2,
    persistent_workers=True,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix='train',
        pipeline=train_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=250,
    num_workers=2,
    persistent_workers=True,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=evaluated_split,
        pipeline=test_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='Accuracy', topk=1)
test_dataloader = val_dataloader
test_evaluator = val_evaluator
