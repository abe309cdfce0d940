_base_ = '../_base_/pairs/faster-rcnn-w24_faster-rcnn-w8_digit-scenes-det.py'

model = dict(
    distill=dict(
        fpn=dict(
            at='neck[:]',
            neck=dict(type='DiffKDNeck'),
            loss=dict(type='MSELoss', loss_weight=5.0),
        ),
        reg=dict(
            at='roi_head.bbox_head.fc_reg',
            loss=dict(type='SmoothL1Loss'),
        ),
    )
)
