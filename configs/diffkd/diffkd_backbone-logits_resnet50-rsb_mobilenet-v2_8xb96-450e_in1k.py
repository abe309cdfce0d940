# Teacher: mmpretrain's ResNet-50 of "ResNet strikes back" (A1), 80.12 top-1.
_base_ = [
    '../baseline/mobilenet-v2_8xb96-450e_in1k.py',
    '../_base_/methods/diffkd_in1k.py',
]

model = dict(
    _delete_=True,
    type='mmdiffkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmpretrain::resnet/resnet50_8xb256-rsb-a1-600e_in1k.py',
        checkpoint='https://mmassets.onedl.ai/mmclassification/v0/resnet/resnet50_8xb256-rsb-a1-600e_in1k_20211228-20e21305.pth',
    ),
    distill=_base_.distill,
)
optim_wrapper = dict(constructor='mmdiffkd.OptimWrapperConstructor')
default_hooks = dict(
    checkpoint=dict(type='mmdiffkd.CheckpointHook'),
    distill=dict(type='mmdiffkd.DistillHook'),
)
