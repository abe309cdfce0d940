# The student starts at a rate of 0.01.
_base_ = [
    '../../baseline/mobilenet-v2-half_1xb64-240e_cifar100.py',
    '../distillation.py',
]

model = dict(
    _delete_=True,
    type='mmdiffkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmdiffkd::baseline/vgg13_1xb64-240e_cifar100.py',
        checkpoint='work_dirs/vgg13_1xb64-240e_cifar100/epoch_240.pth',
    ),
    distill=dict(),
    input_size=32,
)
optim_wrapper = _base_.distillation.optim_wrapper
default_hooks = _base_.distillation.default_hooks
