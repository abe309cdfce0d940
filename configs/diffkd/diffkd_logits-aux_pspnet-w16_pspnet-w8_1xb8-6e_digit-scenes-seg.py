_base_ = [
    '../_base_/pairs/pspnet-w16_pspnet-w8_digit-scenes-seg.py',
    '../_base_/methods/diffkd_digit-scenes-seg.py',
]

model = dict(distill=_base_.distill)
