_base_ = [
    '../_base_/models/pspnet_digit-scenes.py',
    '../_base_/datasets/digit_scenes_seg.py',
    '../_base_/schedules/digit-scenes-seg_6e.py',
    '../_base_/default_runtime_seg.py',
]

model = dict(
    backbone=dict(stem_channels=16, base_channels=16),
    decode_head=dict(in_channels=[16, 32, 64, 128], channels=32),
    auxiliary_head=dict(in_channels=64, channels=16),
)
