_base_ = [
    '../_base_/models/resnet_cifar100.py',
    '../_base_/datasets/cifar100.py',
    '../_base_/schedules/cifar100_240e.py',
    '../_base_/default_runtime.py',
]

model = dict(backbone=dict(depth=56))
