_base_ = '../_base_/pairs/resnet14-w24_resnet14-w4_digit-scenes.py'

model = dict(
    distill=dict(
        stages=dict(
            at=['backbone.layer1', 'backbone.layer2', 'backbone.layer3'],
            loss=dict(type='ATLoss', loss_weight=1000.0),
            # Chosen on the val scenes.
            weight=0.1,
        ),
    )
)
