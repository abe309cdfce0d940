# The hint is f2, the second of the maps that these backbones return.
distill = dict(
    hint=dict(
        at='backbone[1]',
        neck=dict(type='FitNetNeck'),
        loss=dict(type='MSELoss', loss_weight=100.0),
    )
)
