_base_ = [
    '../_base_/models/resnet50_cifar100.py',
    '../_base_/datasets/cifar100.py',
    '../_base_/schedules/cifar100_240e.py',
    '../_base_/default_runtime.py',
]
