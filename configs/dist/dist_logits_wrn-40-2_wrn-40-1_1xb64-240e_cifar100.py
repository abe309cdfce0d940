_base_ = [
    '../_base_/pairs/wrn-40-2_wrn-40-1_cifar100.py',
    '../_base_/methods/dist_cifar100.py',
]

model = dict(distill=_base_.distill)
