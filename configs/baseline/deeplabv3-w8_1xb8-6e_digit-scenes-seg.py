_base_ = [
    '../_base_/models/deeplabv3_digit-scenes.py',
    '../_base_/datasets/digit_scenes_seg.py',
    '../_base_/schedules/digit-scenes-seg_6e.py',
    '../_base_/default_runtime_seg.py',
]

model = dict(
    backbone=dict(stem_channels=8, base_channels=8),
    decode_head=dict(in_channels=[8, 16, 32, 64], channels=16),
    auxiliary_head=dict(in_channels=32, channels=8),
)
