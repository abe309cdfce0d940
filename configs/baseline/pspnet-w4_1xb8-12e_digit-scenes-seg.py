_base_ = [
    '../_base_/models/pspnet_digit-scenes.py',
    '../_base_/datasets/digit_scenes_seg.py',
    '../_base_/schedules/digit-scenes-seg_12e.py',
    '../_base_/default_runtime_seg.py',
]

model = dict(
    backbone=dict(stem_channels=4, base_channels=4),
    decode_head=dict(in_channels=16, channels=8),
    auxiliary_head=dict(in_channels=8, channels=4),
)
