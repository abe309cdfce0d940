_base_ = '../_base_/pairs/resnet14-w24_resnet14-w4_digit-scenes.py'

model = dict(
    distill=dict(
        pooled=dict(
            at='neck[-1]',
            teacher_head='head.fc',
            neck=dict(type='ProjectionNeck', feature='vector'),
            loss=dict(
                type='LSHLoss',
                hash_bits=3072,  # 32 x the teacher's channels
                loss_weight=6.0,
            ),
        ),
    )
)
