_base_ = '../_base_/pairs/fcos-w24_fcos-w8_digit-scenes-det.py'

model = dict(
    distill=dict(
        fpn=dict(
            at='neck[:]',
            neck=dict(type='ProjectionNeck'),
            loss=dict(type='MSELoss', loss_weight=5.0),
        ),
        reg=dict(
            # Behind each level's own scale: the numbers that become distances.
            at=[f'bbox_head.scales.{i}' for i in range(3)],
            loss=dict(type='SmoothL1Loss'),
        ),
    )
)
