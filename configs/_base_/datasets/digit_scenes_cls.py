# Digit scenes for classification: 12,000 / 1,000 / 2,000 images (train, val,
# test) of 32 x 32 pixels in ten classes, written by
# tools/dataset_converters/digit_scenes.py. Settings are chosen on val, figures
# are reported on test.
dataset_type = 'CustomDataset'
data_root = 'data/digit_scenes/cls'

data_preprocessor = dict(
    num_classes=10,
    mean=[67.40, 68.57, 62.75],
    std=[54.76, 46.45, 48.76],
    to_rgb=True,
)

# No flip: a mirrored digit is another sign.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    # Decoded once: a pipeline without random numbers.
    dataset=dict(
        type='mmdiffkd.CachedDataset',
        dataset=dict(
            type=dataset_type,
            data_root=data_root,
            data_prefix='train',
            pipeline=train_pipeline,
        ),
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
        data_prefix='val',
        pipeline=test_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='Accuracy', topk=1)
test_dataloader = dict(
    val_dataloader, dataset=dict(val_dataloader['dataset'], data_prefix='test')
)
test_evaluator = val_evaluator
