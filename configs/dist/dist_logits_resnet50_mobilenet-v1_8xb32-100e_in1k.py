_base_ = [
    '../_base_/pairs/resnet50_mobilenet-v1_in1k.py',
    '../_base_/methods/dist_in1k.py',
]

model = dict(distill=_base_.distill)
