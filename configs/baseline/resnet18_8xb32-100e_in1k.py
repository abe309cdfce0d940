_base_ = [
    'mmpretrain::_base_/models/resnet18.py',
    '../_base_/datasets/imagenet_crop-flip.py',
    '../_base_/schedules/imagenet_sgd-100e.py',
    '../_base_/default_runtime.py',
]
