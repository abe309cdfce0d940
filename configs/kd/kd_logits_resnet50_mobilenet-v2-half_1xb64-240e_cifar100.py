_base_ = [
    '../_base_/pairs/resnet50_mobilenet-v2-half_cifar100.py',
    '../_base_/methods/kd_cifar100.py',
]

model = dict(student=_base_.student, distill=_base_.distill)
