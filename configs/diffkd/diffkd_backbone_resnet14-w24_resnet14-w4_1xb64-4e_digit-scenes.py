_base_ = '../_base_/pairs/resnet14-w24_resnet14-w4_digit-scenes.py'

model = dict(
    distill=dict(
        feature=dict(
            at='backbone[-1]',
            neck=dict(type='DiffKDNeck', latent_channels=64),
            loss=dict(type='MSELoss', loss_weight=10.0),
        )
    )
)
