# f1 to f3, which are all stages of ResNets, WRNs and ShuffleNets.
distill = dict(
    stages=dict(
        at='backbone[0:3]',
        neck=dict(type='VIDNeck'),
        loss=dict(type='VIDLoss'),
    )
)
