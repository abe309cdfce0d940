_base_ = [
    '../_base_/models/faster-rcnn_digit-scenes.py',
    '../_base_/datasets/digit_scenes_det.py',
    '../_base_/schedules/digit-scenes-det_6e.py',
    '../_base_/default_runtime_det.py',
]

model = dict(
    backbone=dict(base_channels=24),
    neck=dict(in_channels=[48, 96, 192], out_channels=48),
    rpn_head=dict(in_channels=48, feat_channels=48),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=48),
        bbox_head=dict(
            in_channels=48, conv_out_channels=48, fc_out_channels=128
        ),
    ),
)
