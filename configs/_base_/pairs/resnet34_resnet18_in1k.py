# Teacher: torchvision's ResNet-34; ../../diffkd/README.md says how to make the
# file.
_base_ = '../../baseline/resnet18_8xb32-100e_in1k.py'

model = dict(
    _delete_=True,
    type='mmdiffkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmpretrain::resnet/resnet34_8xb32_in1k.py',
        checkpoint='checkpoints/resnet34_torchvision.pth',
    ),
    distill=dict(),
)
optim_wrapper = dict(constructor='mmdiffkd.OptimWrapperConstructor')
default_hooks = dict(
    checkpoint=dict(type='mmdiffkd.CheckpointHook'),
    distill=dict(type='mmdiffkd.DistillHook'),
)
