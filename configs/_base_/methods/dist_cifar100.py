distill = dict(
    logits=dict(
        at='head.fc', loss=dict(type='DISTLoss', tau=4.0, loss_weight=2.0)
    )
)
