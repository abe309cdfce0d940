_base_ = './detector_digit-scenes.py'

model = dict(
    type='FCOS',
    bbox_head=dict(
        type='FCOSHead',
        num_classes=10,
        stacked_convs=2,
        strides=[8, 16, 32],
        # Four strides: nearly every digit is found at the finest level.
        regress_ranges=((-1, 32), (32, 64), (64, 1e8)),
        center_sampling=True,
        centerness_on_reg=True,
        norm_on_bbox=True,
        norm_cfg=dict(type='GN', num_groups=4),
        loss_cls=dict(
            type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25
        ),
        loss_bbox=dict(type='GIoULoss'),
        loss_centerness=dict(type='CrossEntropyLoss', use_sigmoid=True),
    ),
    test_cfg=dict(
        nms_pre=300,
        min_bbox_size=0,
        score_thr=0.05,
        nms=dict(type='nms', iou_threshold=0.5),
        max_per_img=30,
    ),
)
