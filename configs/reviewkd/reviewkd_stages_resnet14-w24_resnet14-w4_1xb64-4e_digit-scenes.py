_base_ = '../_base_/pairs/resnet14-w24_resnet14-w4_digit-scenes.py'

model = dict(
    distill=dict(
        stages=dict(
            student_at=[
                'backbone.layer1',
                'backbone.layer2',
                'backbone.layer3',
            ],
            # What the last activation of each stage gets.
            teacher_at=[
                'backbone.layer1.1.relu@input[-1]',
                'backbone.layer2.1.relu@input[-1]',
                'backbone.layer3.1.relu@input[-1]',
            ],
            neck=dict(type='ReviewKDNeck'),
            loss=dict(type='HCLLoss'),
            schedule=dict(warmup=1),
            # Chosen on the val scenes.
            weight=9.0,
        ),
    )
)
