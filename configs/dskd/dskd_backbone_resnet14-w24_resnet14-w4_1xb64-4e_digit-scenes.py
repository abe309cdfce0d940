# DSKD (reconstruction).
_base_ = '../_base_/pairs/resnet14-w24_resnet14-w4_digit-scenes.py'

model = dict(
    distill=dict(
        feature=dict(
            at='backbone[-1]',
            teacher_head='head.fc',
            neck=dict(type='DSKDNeck', pooled=True),
            loss=dict(
                type='LSHLoss', bias='zero', with_l2=False, loss_weight=6.0
            ),
            # Chosen on the val scenes.
            weight=0.3,
        ),
    )
)
