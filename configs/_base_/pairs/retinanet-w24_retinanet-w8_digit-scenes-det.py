# Teacher and student on digit scenes; a method adds `model.distill`. The
# teacher's weights are where tools/train.py leaves them.
_base_ = [
    '../../baseline/retinanet-w8_1xb16-6e_digit-scenes-det.py',
    '../distillation.py',
]

model = dict(
    _delete_=True,
    type='mmdiffkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmdiffkd::baseline/retinanet-w24_1xb16-6e_digit-scenes-det.py',
        checkpoint='work_dirs/retinanet-w24_1xb16-6e_digit-scenes-det/'
        'epoch_6.pth',
        # The figures of docs/results.md were measured without these two.
        fold_batch_norm=False,
        channels_last=False,
    ),
    distill=dict(),
    input_size=128,
)
optim_wrapper = _base_.distillation.optim_wrapper
default_hooks = _base_.distillation.default_hooks
