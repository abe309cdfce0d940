_base_ = '../_base_/pairs/resnet14-w24_resnet14-w4_digit-scenes.py'

model = dict(
    distill=dict(
        # 16384 for the 50,000 images of CIFAR-100; here there are 12,000.
        pooled=dict(
            at='neck[-1]',
            loss=dict(type='CRDLoss', neg_num=1024, loss_weight=0.8),
            # Chosen on the val scenes.
            weight=0.01,
        ),
    )
)
