_base_ = [
    '../_base_/pairs/deeplabv3-w16_deeplabv3-w8_digit-scenes-seg.py',
    '../_base_/methods/mse_digit-scenes-seg.py',
]

model = dict(distill=_base_.distill)
