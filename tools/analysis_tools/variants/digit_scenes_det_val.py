"""Settings for the RetinaNets on digit scenes to be chosen from.

python tools/analysis_tools/compare_methods.py --split val --seeds 2 \
    --variants tools/analysis_tools/variants/digit_scenes_det_val.py \
    --teacher-checkpoint work_dirs/demo-det/teacher/epoch_6.pth \
    --work-dir work_dirs/val_det
"""

PAIR = 'retinanet-w24_retinanet-w8_1xb16-6e_digit-scenes-det'
MSE = f'configs/mse/mse_fpn-reg_{PAIR}.py'
DIFFKD = f'configs/diffkd/diffkd_fpn-reg_{PAIR}.py'

variants = {
    f'student alone, lr {lr}': (
        'configs/baseline/retinanet-w8_1xb16-6e_digit-scenes-det.py',
        {'optim_wrapper.optimizer.lr': lr},
    )
    for lr in (2e-3, 1e-3, 4e-3, 8e-3)
}
variants |= {
    f'{method}, weight {weight}': (
        config,
        {'model.distill.fpn.loss.loss_weight': weight},
    )
    for method, config in (('MSE', MSE), ('DiffKD', DIFFKD))
    for weight in (1.0, 2.0, 5.0, 10.0)
}
