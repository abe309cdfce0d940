# The same on CIFAR-100 and ImageNet.
distill = dict(
    pooled=dict(
        at='neck[-1]',
        neck=dict(type='ProjectorEnsembleNeck', num_projectors=3),
        loss=dict(type='DirectionAlignmentLoss', loss_weight=25.0),
    )
)
