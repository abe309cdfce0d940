"""DiffKD on PSPNets of digit scenes: its neck and its distance, one at a time.

python tools/analysis_tools/compare_methods.py --seeds 3 --jobs 2 \
    --variants tools/analysis_tools/variants/digit_scenes_seg_ablations.py \
    --work-dir work_dirs/compare_seg --out work_dirs/compare_seg/ablations
"""

PAIR = 'pspnet-w16_pspnet-w8_1xb8-6e_digit-scenes-seg'
DIFFKD = f'configs/diffkd/diffkd_logits-aux_{PAIR}.py'


def both(setting, value):
    """Change one setting of the entries at both heads."""
    return {
        f'model.distill.{entry}.{setting}': value
        for entry in ('logits', 'aux')
    }


variants = {
    'student alone': (
        'configs/baseline/pspnet-w8_1xb8-6e_digit-scenes-seg.py',
        {},
    ),
    'DiffKD': (DIFFKD, {}),
    'DiffKD, MSE instead of DIST': (DIFFKD, both('loss.type', 'MSELoss')),
    'DIST, no neck': (DIFFKD, both('neck', None)),
    'MSE': (f'configs/mse/mse_logits-aux_{PAIR}.py', {}),
}
