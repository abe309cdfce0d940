_base_ = [
    '../_base_/pairs/resnet32x4_shufflenet-v1_cifar100.py',
    '../_base_/methods/kd_cifar100.py',
]

model = dict(student=_base_.student, distill=_base_.distill)
