_base_ = '../_base_/pairs/resnet14-w24_resnet14-w4_digit-scenes.py'

# The weights were chosen on the val scenes.
model = dict(
    distill=dict(
        distance=dict(
            at='neck[-1]',
            loss=dict(
                type='DistanceWiseRKD', loss_weight=25.0, with_l2_norm=False
            ),
            weight=0.01,
        ),
        angle=dict(
            at='neck[-1]',
            loss=dict(
                type='AngleWiseRKD', loss_weight=50.0, with_l2_norm=False
            ),
            weight=0.01,
        ),
    )
)
