_base_ = [
    '../_base_/pairs/resnet32x4_shufflenet-v1_cifar100.py',
    '../_base_/methods/diffkd_cifar100.py',
]

model = dict(distill=_base_.distill)
