_base_ = '../_base_/pairs/resnet14-w24_resnet14-w4_digit-scenes.py'

model = dict(
    distill=dict(
        feature=dict(
            at='backbone[-1]',
            neck=dict(type='ProjectionNeck'),
            loss=dict(type='MSELoss', loss_weight=10.0),
            # Chosen on the val scenes.
            weight=0.3,
        )
    )
)
