_base_ = [
    '../../baseline/resnet8x4_1xb64-240e_cifar100.py',
    '../distillation.py',
]

model = dict(
    _delete_=True,
    type='mmdiffkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmdiffkd::baseline/resnet32x4_1xb64-240e_cifar100.py',
        checkpoint='work_dirs/resnet32x4_1xb64-240e_cifar100/epoch_240.pth',
    ),
    distill=dict(),
    input_size=32,
)
optim_wrapper = _base_.distillation.optim_wrapper
default_hooks = _base_.distillation.default_hooks
