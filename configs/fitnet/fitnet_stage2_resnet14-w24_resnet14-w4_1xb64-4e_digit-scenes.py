_base_ = '../_base_/pairs/resnet14-w24_resnet14-w4_digit-scenes.py'

model = dict(
    distill=dict(
        hint=dict(
            at='backbone.layer2',
            neck=dict(type='FitNetNeck'),
            loss=dict(type='MSELoss', loss_weight=10.0),
        ),
    )
)
