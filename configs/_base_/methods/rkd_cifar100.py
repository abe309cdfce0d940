# Both between pooled features as they are, not scaled to length 1.
distill = dict(
    distance=dict(
        at='neck[-1]',
        loss=dict(
            type='DistanceWiseRKD', loss_weight=25.0, with_l2_norm=False
        ),
    ),
    angle=dict(
        at='neck[-1]',
        loss=dict(type='AngleWiseRKD', loss_weight=50.0, with_l2_norm=False),
    ),
)
