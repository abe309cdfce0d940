"""Settings for the PSPNets on digit scenes to be chosen from.

python tools/analysis_tools/compare_methods.py --split val --seeds 2 \
    --variants tools/analysis_tools/variants/digit_scenes_seg_val.py \
    --teacher-checkpoint work_dirs/demo-seg/teacher/epoch_6.pth \
    --work-dir work_dirs/val_seg
"""

PAIR = 'pspnet-w16_pspnet-w8_1xb8-6e_digit-scenes-seg'
MSE = f'configs/mse/mse_logits-aux_{PAIR}.py'
DIFFKD = f'configs/diffkd/diffkd_logits-aux_{PAIR}.py'

variants = {
    f'student alone, lr {lr}': (
        'configs/baseline/pspnet-w8_1xb8-6e_digit-scenes-seg.py',
        {'optim_wrapper.optimizer.lr': lr},
    )
    for lr in (5e-3, 2e-3, 1e-2, 2e-2)
}
variants |= {
    f'{method}, weight {weight}': (
        config,
        {
            f'model.distill.{entry}.loss.loss_weight': weight
            for entry in ('logits', 'aux')
        },
    )
    for method, config in (('MSE', MSE), ('DiffKD', DIFFKD))
    for weight in (0.3, 1.0, 3.0, 10.0)
}
