# Digit scenes for segmentation: 2,000 / 200 / 300 images (train, val, test) of
# 96 x 192 pixels in eleven classes (background and ten digits), written by
# tools/dataset_converters/digit_scenes.py. Settings are chosen on val, figures
# are reported on test.
#
# The folders and suffixes are Cityscapes'. mmseg's CityscapesDataset would
# read them, but takes subsets of its own 19 class names only, so that
# background would be called road; its parent class takes any.
dataset_type = 'BaseSegDataset'
data_root = 'data/digit_scenes/seg/'
layout = dict(
    img_suffix='_leftImg8bit.png',
    seg_map_suffix='_gtFine_labelTrainIds.png',
)
metainfo = dict(
    classes=('background', *map(str, range(10))),
    # Those of mmdiffkd.datasets.digit_scenes.
    palette=[
        [40, 40, 40],
        [230, 25, 75],
        [60, 180, 75],
        [255, 225, 25],
        [67, 99, 216],
        [245, 130, 49],
        [145, 30, 180],
        [66, 212, 244],
        [240, 50, 230],
        [191, 239, 69],
        [250, 190, 212],
    ],
)

# No flip: a mirrored digit is another sign.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]

train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    # Decoded once: a pipeline without random numbers.
    dataset=dict(
        type='mmdiffkd.CachedDataset',
        dataset=dict(
            type=dataset_type,
            data_root=data_root,
            metainfo=metainfo,
            data_prefix=dict(
                img_path='leftImg8bit/train', seg_map_path='gtFine/train'
            ),
            pipeline=train_pipeline,
            **layout,
        ),
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=50,
    num_workers=2,
    persistent_workers=True,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        metainfo=metainfo,
        data_prefix=dict(
            img_path='leftImg8bit/val', seg_map_path='gtFine/val'
        ),
        pipeline=test_pipeline,
        **layout,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_dataloader = dict(
    val_dataloader,
    dataset=dict(
        val_dataloader['dataset'],
        data_prefix=dict(
            img_path='leftImg8bit/test', seg_map_path='gtFine/test'
        ),
    ),
)
test_evaluator = val_evaluator
