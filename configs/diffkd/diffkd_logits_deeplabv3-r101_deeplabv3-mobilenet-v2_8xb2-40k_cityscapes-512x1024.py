_base_ = [
    '../baseline/deeplabv3-mobilenet-v2_8xb2-40k_cityscapes-512x1024.py',
    '../_base_/teachers/deeplabv3-r101_cityscapes.py',
    '../_base_/methods/diffkd_cityscapes.py',
    '../_base_/distillation.py',
]

model = dict(
    _delete_=True,
    type='mmdiffkd.Distiller',
    student=_base_.model,
    teacher=_base_.teacher,
    distill=dict(logits=_base_.distill.logits),
    input_size=(512, 1024),
)
optim_wrapper = _base_.distillation.optim_wrapper
default_hooks = _base_.distillation.default_hooks
