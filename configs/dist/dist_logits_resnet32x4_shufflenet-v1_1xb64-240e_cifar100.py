_base_ = [
    '../_base_/pairs/resnet32x4_shufflenet-v1_cifar100.py',
    '../_base_/methods/dist_cifar100.py',
]

model = dict(distill=_base_.distill)
