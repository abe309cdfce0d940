# What DiffKD distils on Cityscapes: the predicted class maps, with DIST over
# pixels, without an autoencoder; all weights 1 (Sec. 4.3 and B.4 of the
# paper). It says nothing of the auxiliary head: that its maps are distilled
# too, at 0.4 of the weight, follows the code base of its first author.
distill = dict(
    logits=dict(
        at='decode_head.conv_seg',
        neck=dict(type='DiffKDNeck'),
        loss=dict(type='DISTLoss'),
    ),
    aux=dict(
        at='auxiliary_head.conv_seg',
        neck=dict(type='DiffKDNeck'),
        loss=dict(type='DISTLoss'),
        weight=0.4,
    ),
)
