# The common start of all students: a seed of its own, three epochs.
_base_ = [
    '../_base_/models/resnet14_digit-scenes.py',
    '../_base_/datasets/digit_scenes_cls.py',
    '../_base_/schedules/digit-scenes_6e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(stem_channels=8, base_channels=4),
    head=dict(in_channels=16),
)
train_cfg = dict(max_epochs=3, val_interval=3)
randomness = dict(seed=1000)
