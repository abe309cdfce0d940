_base_ = [
    '../_base_/pairs/resnet34_resnet18_in1k.py',
    '../_base_/methods/kd_in1k.py',
]

model = dict(student=_base_.student, distill=_base_.distill)
