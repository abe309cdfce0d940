_base_ = [
    'mmpretrain::_base_/models/swin_transformer/tiny_224.py',
    '../_base_/datasets/imagenet_randaugment-color-jitter.py',
    '../_base_/schedules/imagenet_adamw-300e.py',
    '../_base_/default_runtime.py',
]
