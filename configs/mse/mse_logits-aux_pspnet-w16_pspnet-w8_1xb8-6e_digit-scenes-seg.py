_base_ = '../_base_/pairs/pspnet-w16_pspnet-w8_digit-scenes-seg.py'

model = dict(
    distill=dict(
        logits=dict(
            at='decode_head.conv_seg',
            loss=dict(type='MSELoss', loss_weight=3.0),
        ),
        aux=dict(
            at='auxiliary_head.conv_seg',
            loss=dict(type='MSELoss', loss_weight=3.0),
            weight=0.4,
        ),
    )
)
