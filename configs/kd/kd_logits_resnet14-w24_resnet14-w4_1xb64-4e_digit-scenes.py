_base_ = '../_base_/pairs/resnet14-w24_resnet14-w4_digit-scenes.py'

model = dict(
    distill=dict(
        logits=dict(
            at='head.fc',
            loss=dict(type='KLDivergence', tau=4.0),
        )
    )
)
