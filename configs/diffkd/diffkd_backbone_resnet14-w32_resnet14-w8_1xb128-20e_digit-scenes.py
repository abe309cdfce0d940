_base_ = '../baseline/resnet14-w8_1xb128-20e_digit-scenes.py'

model = dict(
    _delete_=True,
    type='mmdiffkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='configs/baseline/resnet14-w32_1xb128-20e_digit-scenes.py',
        checkpoint='work_dirs/demo/teacher/epoch_20.pth',
    ),
    distill=dict(
        feature=dict(
            at='backbone[-1]',
            neck=dict(type='DiffKDNeck', latent_channels=64),
            loss=dict(type='MSELoss', loss_weight=5.0),
        ),
    ),
    input_size=32,
)
optim_wrapper = dict(constructor='mmdiffkd.OptimWrapperConstructor')
default_hooks = dict(
    checkpoint=dict(type='mmdiffkd.CheckpointHook'),
    distill=dict(type='mmdiffkd.DistillHook'),
)
