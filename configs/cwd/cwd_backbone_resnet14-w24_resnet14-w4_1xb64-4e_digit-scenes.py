_base_ = '../_base_/pairs/resnet14-w24_resnet14-w4_digit-scenes.py'

model = dict(
    distill=dict(
        feature=dict(
            at='backbone[-1]',
            neck=dict(type='ProjectionNeck'),
            loss=dict(type='ChannelWiseDivergence', tau=1.0, loss_weight=5.0),
            # Chosen on the val scenes.
            weight=3.0,
        ),
    )
)
