# The memory banks need `sample_idx`, which PackInputs packs by default, and
# mmdiffkd.DistillHook, which allocates them.
distill = dict(
    pooled=dict(
        at='neck[-1]',
        loss=dict(type='CRDLoss', neg_num=16384, loss_weight=0.8),
    )
)
