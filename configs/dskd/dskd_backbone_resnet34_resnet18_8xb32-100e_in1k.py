_base_ = [
    '../_base_/pairs/resnet34_resnet18_in1k.py',
    '../_base_/methods/dskd_in1k.py',
]

model = dict(distill=_base_.distill)
