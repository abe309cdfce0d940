_base_ = [
    '../_base_/pairs/resnet56_resnet20_cifar100.py',
    '../_base_/methods/kd_cifar100.py',
]

model = dict(student=_base_.student, distill=_base_.distill)
