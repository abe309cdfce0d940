_base_ = '../_base_/pairs/deeplabv3-w16_deeplabv3-w8_digit-scenes-seg.py'

# In full from the first step on, it kept a PSPNet from telling the classes
# apart for six epochs.
schedule = dict(warmup=500, by_epoch=False)
model = dict(
    distill=dict(
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
)
