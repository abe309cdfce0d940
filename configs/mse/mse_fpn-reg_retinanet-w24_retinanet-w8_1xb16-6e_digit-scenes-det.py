_base_ = '../_base_/pairs/retinanet-w24_retinanet-w8_digit-scenes-det.py'

model = dict(
    distill=dict(
        fpn=dict(
            at='neck[:]',
            neck=dict(type='ProjectionNeck'),
            loss=dict(type='MSELoss', loss_weight=5.0),
        ),
        reg=dict(
            at='bbox_head.retina_reg',
            loss=dict(type='SmoothL1Loss'),
        ),
    )
)
