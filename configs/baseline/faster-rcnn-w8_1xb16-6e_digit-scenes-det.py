_base_ = [
    '../_base_/models/faster-rcnn_digit-scenes.py',
    '../_base_/datasets/digit_scenes_det.py',
    '../_base_/schedules/digit-scenes-det_6e.py',
    '../_base_/default_runtime_det.py',
]

model = dict(
    backbone=dict(base_channels=8),
    neck=dict(in_channels=[16, 32, 64], out_channels=24),
    rpn_head=dict(in_channels=24, feat_channels=24),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=24),
        bbox_head=dict(
            in_channels=24, conv_out_channels=24, fc_out_channels=64
        ),
    ),
)
