_base_ = '../_base_/pairs/resnet14-w24_resnet14-w4_digit-scenes.py'

model = dict(
    distill=dict(
        logits=dict(
            at='head.fc',
            loss=dict(type='DKDLoss', tau=4.0, alpha=1.0, beta=2.0),
            schedule=dict(warmup=1),
            # Chosen on the val scenes.
            weight=0.3,
        ),
    )
)
