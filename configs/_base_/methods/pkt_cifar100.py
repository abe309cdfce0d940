distill = dict(
    pooled=dict(at='neck[-1]', loss=dict(type='PKTLoss', loss_weight=30000.0))
)
