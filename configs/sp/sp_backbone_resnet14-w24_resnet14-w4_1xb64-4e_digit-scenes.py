_base_ = '../_base_/pairs/resnet14-w24_resnet14-w4_digit-scenes.py'

model = dict(
    distill=dict(
        feature=dict(
            at='backbone[-1]', loss=dict(type='SPLoss', loss_weight=3000.0)
        ),
    )
)
