_base_ = [
    '../_base_/pairs/resnet32x4_shufflenet-v1_cifar100.py',
    '../_base_/methods/dkd_beta8_cifar100.py',
]

model = dict(distill=_base_.distill)
