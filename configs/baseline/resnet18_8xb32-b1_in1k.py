_base_ = [
    'mmpretrain::_base_/models/resnet18.py',
    '../_base_/datasets/imagenet_b1.py',
    '../_base_/schedules/imagenet_b1.py',
    '../_base_/default_runtime.py',
]
