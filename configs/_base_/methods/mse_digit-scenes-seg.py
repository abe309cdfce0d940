# The class maps of a PSPNet or DeepLabV3 on digit scenes, with MSE.
distill = dict(
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
