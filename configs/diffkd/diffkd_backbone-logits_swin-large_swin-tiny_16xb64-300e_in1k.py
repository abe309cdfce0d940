_base_ = [
    '../baseline/swin-tiny_16xb64-300e_in1k.py',
    '../_base_/teachers/swin-large_in1k.py',
    '../_base_/methods/diffkd_swin-large_in1k.py',
    '../_base_/distillation.py',
]

model = dict(
    _delete_=True,
    type='mmdiffkd.Distiller',
    student=_base_.model,
    teacher=_base_.teacher,
    distill=_base_.distill,
)
optim_wrapper = _base_.distillation.optim_wrapper
default_hooks = _base_.distillation.default_hooks
