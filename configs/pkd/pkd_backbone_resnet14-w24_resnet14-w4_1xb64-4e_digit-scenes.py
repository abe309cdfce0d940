_base_ = '../_base_/pairs/resnet14-w24_resnet14-w4_digit-scenes.py'

model = dict(
    distill=dict(
        feature=dict(
            at='backbone[-1]',
            neck=dict(type='ProjectionNeck'),
            loss=dict(type='PKDLoss', loss_weight=6.0),
            # Chosen on the val scenes.
            weight=9.0,
        ),
    )
)
