_base_ = [
    '../_base_/pairs/vgg13_vgg8_cifar100.py',
    '../_base_/methods/dist_cifar100.py',
]

model = dict(distill=_base_.distill)
