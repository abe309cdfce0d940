_base_ = [
    '../_base_/models/resnet14_digit-scenes.py',
    '../_base_/datasets/digit_scenes_cls.py',
    '../_base_/schedules/digit-scenes_6e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(stem_channels=16, base_channels=24),
    head=dict(in_channels=96),
)
