_base_ = [
    '../_base_/pairs/resnet50_mobilenet-v2-half_cifar100.py',
    '../_base_/methods/dist_cifar100.py',
]

model = dict(distill=_base_.distill)
