# The image encoder of Segment Anything teaches a segmentor.
_base_ = [
    'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
    '../_base_/methods/radio.py',
    '../_base_/distillation.py',
]

model = dict(
    _delete_=True,
    type='mmdiffkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmpretrain::sam/vit-base-p16_sam_headless.py',
        checkpoint='checkpoints/vit-base-p16_sam-pre_3rdparty_sa1b-1024px_20230411-2320f9cc.pth',
        input_size=1024,  # what it was trained on: 64 x 64 patches
    ),
    distill=dict(maps=dict(teacher_at='backbone[-1]', **_base_.entry)),
    input_size=512,
)
auto_scale_lr = dict(enable=False, base_batch_size=16)
optim_wrapper = _base_.distillation.optim_wrapper
default_hooks = _base_.distillation.default_hooks
