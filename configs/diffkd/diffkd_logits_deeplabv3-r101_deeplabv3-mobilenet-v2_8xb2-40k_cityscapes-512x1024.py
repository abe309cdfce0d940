# Teacher: mmseg's, 80.2 mIoU after 80,000 iterations; 78.07 in the paper.
_base_ = [
    '../baseline/deeplabv3-mobilenet-v2_8xb2-40k_cityscapes-512x1024.py',
    '../_base_/methods/diffkd_cityscapes.py',
]

model = dict(
    _delete_=True,
    type='mmdiffkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmseg::deeplabv3/'
        'deeplabv3_r101-d8_4xb2-80k_cityscapes-512x1024.py',
        checkpoint='https://mmassets.onedl.ai/mmsegmentation/v0.5/deeplabv3/deeplabv3_r101-d8_512x1024_80k_cityscapes/deeplabv3_r101-d8_512x1024_80k_cityscapes_20200606_113503-9e428899.pth',
    ),
    distill=dict(logits=_base_.distill.logits),
    input_size=(512, 1024),
)
optim_wrapper = dict(constructor='mmdiffkd.OptimWrapperConstructor')
default_hooks = dict(
    checkpoint=dict(type='mmdiffkd.CheckpointHook'),
    distill=dict(type='mmdiffkd.DistillHook'),
)
