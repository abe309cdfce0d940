_base_ = '../_base_/pairs/resnet14-w24_resnet14-w4_digit-scenes.py'

model = dict(
    distill=dict(
        pooled=dict(
            at='neck[-1]',
            neck=dict(type='ProjectorEnsembleNeck', num_projectors=3),
            loss=dict(type='DirectionAlignmentLoss', loss_weight=25.0),
        ),
    )
)
