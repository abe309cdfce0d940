# ZeRO by DeepSpeed: optimizer state and gradients of student and necks are
# spread over the processes; the teacher stays whole on each. A second base
# beside a recipe, which also needs
# `optim_wrapper=dict(type='DeepSpeedOptimWrapper')`: docs/scaling.md.
runner_type = 'FlexibleRunner'
strategy = dict(
    type='DeepSpeedStrategy',
    zero_optimization=dict(stage=2),
    # SGD and LAMB are among those that DeepSpeed has not tested.
    config=dict(zero_allow_untested_optimizer=True),
)
