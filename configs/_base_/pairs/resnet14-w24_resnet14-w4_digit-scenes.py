# Teacher and student on digit scenes; a method adds `model.distill`. The
# teacher's weights are where tools/train.py leaves them.
_base_ = [
    '../../baseline/resnet14-w4_1xb64-4e_digit-scenes.py',
    '../distillation.py',
]

model = dict(
    _delete_=True,
    type='mmdiffkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmdiffkd::baseline/resnet14-w24_1xb64-6e_digit-scenes.py',
        checkpoint='work_dirs/resnet14-w24_1xb64-6e_digit-scenes/epoch_6.pth',
        # The figures of docs/results.md were measured without these two.
        fold_batch_norm=False,
        channels_last=False,
    ),
    distill=dict(),
    input_size=32,
)
optim_wrapper = _base_.distillation.optim_wrapper
default_hooks = _base_.distillation.default_hooks
