_base_ = [
    '../_base_/pairs/resnet32x4_resnet8x4_cifar100.py',
    '../_base_/methods/kd_cifar100.py',
]

model = dict(student=_base_.student, distill=_base_.distill)
