# What a distillation changes in the recipe of its student. MMEngine refuses
# two bases that share a key. So this base has a key of its own, and a config
# assigns each part: `default_hooks = _base_.distillation.default_hooks`.
distillation = dict(
    optim_wrapper=dict(constructor='mmdiffkd.OptimWrapperConstructor'),
    default_hooks=dict(
        checkpoint=dict(type='mmdiffkd.CheckpointHook'),
        distill=dict(type='mmdiffkd.DistillHook'),
    ),
)
