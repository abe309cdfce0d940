# DiffKD on the class maps of a PSPNet or DeepLabV3 on digit scenes, with DIST.
#
# Why a warm-up: at full weight from the first step on, the two entries kept a
# PSPNet from telling the classes apart for six epochs.
schedule = dict(warmup=500, by_epoch=False)
distill = dict(
    # Eleven channels leave no bottleneck to be narrowed.
    logits=dict(
        at='decode_head.conv_seg',
        neck=dict(type='DiffKDNeck', denoiser=dict(reduction=1)),
        loss=dict(type='DISTLoss', loss_weight=3.0),
        schedule=schedule,
    ),
    aux=dict(
        at='auxiliary_head.conv_seg',
        neck=dict(type='DiffKDNeck', denoiser=dict(reduction=1)),
        loss=dict(type='DISTLoss', loss_weight=3.0),
        weight=0.4,
        schedule=schedule,
    ),
)
