# Teacher: torchvision's ResNet-50; ../../diffkd/README.md says how to make the
# file.
_base_ = [
    '../../baseline/mobilenet-v1_8xb32-100e_in1k.py',
    '../distillation.py',
]

model = dict(
    _delete_=True,
    type='mmdiffkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmpretrain::resnet/resnet50_8xb32_in1k.py',
        checkpoint='checkpoints/resnet50_torchvision.pth',
    ),
    distill=dict(),
)
optim_wrapper = _base_.distillation.optim_wrapper
default_hooks = _base_.distillation.default_hooks
