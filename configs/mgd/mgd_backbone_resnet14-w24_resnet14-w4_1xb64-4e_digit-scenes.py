_base_ = '../_base_/pairs/resnet14-w24_resnet14-w4_digit-scenes.py'

model = dict(
    distill=dict(
        feature=dict(
            at='backbone[-1]',
            neck=dict(type='MGDNeck', lambda_mgd=0.15, mask_on_channel=True),
            # 7e-5 on ImageNet, whose maps have 16 times as many elements.
            loss=dict(type='MGDLoss', alpha_mgd=1e-3),
            # Chosen on the val scenes.
            weight=3.0,
        ),
    )
)
