# Teacher: mmpretrain's Swin-L, pretrained on ImageNet-21k, 86.24 top-1.
_base_ = [
    '../baseline/resnet50_8xb96-450e_in1k.py',
    '../_base_/methods/diffkd_swin-large_in1k.py',
]

model = dict(
    _delete_=True,
    type='mmdiffkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmpretrain::swin_transformer/swin-large_16xb64_in1k.py',
        checkpoint='https://mmassets.onedl.ai/mmclassification/v0/swin-transformer/convert/swin_large_patch4_window7_224_22kto1k-5f0996db.pth',
    ),
    distill=_base_.distill,
)
optim_wrapper = dict(constructor='mmdiffkd.OptimWrapperConstructor')
default_hooks = dict(
    checkpoint=dict(type='mmdiffkd.CheckpointHook'),
    distill=dict(type='mmdiffkd.DistillHook'),
)
