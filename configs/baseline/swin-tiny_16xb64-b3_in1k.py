_base_ = [
    'mmpretrain::_base_/models/swin_transformer/tiny_224.py',
    '../_base_/datasets/imagenet_b3.py',
    '../_base_/schedules/imagenet_b3.py',
    '../_base_/default_runtime.py',
]
