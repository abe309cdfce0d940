_base_ = '../_base_/pairs/retinanet-w24_retinanet-w8_digit-scenes-det.py'

model = dict(
    distill=dict(
        fpn=dict(
            at='neck[:]',
            neck=dict(type='ProjectionNeck'),
            loss=dict(type='FGDLoss', gamma_fgd=5e-4),
        ),
    )
)
