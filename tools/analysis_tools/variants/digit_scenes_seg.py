r"""DiffKD at the class maps of a PSPNet, and what tells whether it helps.

python tools/train.py \
    configs/baseline/pspnet-w16_1xb8-6e_digit-scenes-seg.py  # the teacher
python tools/analysis_tools/compare_methods.py --seeds 3 --jobs 2 \
    --variants tools/analysis_tools/variants/digit_scenes_seg.py \
    --work-dir work_dirs/controls_seg

``val`` has three weights for every row, a factor of three apart:

python tools/analysis_tools/compare_methods.py --split val --seeds 1 \
    --jobs 2 --work-dir work_dirs/controls_seg_val \
    --variants tools/analysis_tools/variants/digit_scenes_seg.py:val
"""

from mmdiffkd.analysis.comparison import weighted_rows

PAIR = 'pspnet-w16_pspnet-w8_1xb8-6e_digit-scenes-seg'
ALONE = 'configs/baseline/pspnet-w8_1xb8-6e_digit-scenes-seg.py'
MSE = f'configs/mse/mse_logits-aux_{PAIR}.py'
DIFFKD = f'configs/diffkd/diffkd_logits-aux_{PAIR}.py'
HEADS = ('logits', 'aux')


def at_heads(setting: str, value: object) -> dict:
    """A setting of the entries at both heads."""
    return {f'model.distill.{head}.{setting}': value for head in HEADS}


BARE = at_heads('neck', None)
FEATURE = 'model.distill.feature'
#: Label to a config, and what is changed in it but for the weights.
ROWS = {
    'MSE': (MSE, {}),
    'DIST': (DIFFKD, BARE),
    'DiffKD': (DIFFKD, {}),
    'projector': (
        DIFFKD,
        at_heads('neck.type', 'mmdiffkd.analysis.controls.ProjectorNeck'),
    ),
    # DiffKD before the classifier, where channels have no names.
    'DiffKD before the classes, and DIST': (
        DIFFKD,
        BARE
        | {
            f'{FEATURE}.at': 'decode_head.conv_seg@input',
            f'{FEATURE}.neck.type': 'DiffKDNeck',
            f'{FEATURE}.loss.type': 'MSELoss',
            f'{FEATURE}.loss.loss_weight': 5.0,
        },
    ),
}
#: Factors on the weights other than 1, chosen on val.
CHOSEN: dict[str, float] = {}


def weighted(label: str, factor: float) -> tuple[str, dict]:
    """A row whose weights, 1 and 0.4 at the two heads, have this factor."""
    config, options = ROWS[label]
    weights = {
        'model.distill.logits.weight': factor,
        'model.distill.aux.weight': round(0.4 * factor, 4),
    }
    if f'{FEATURE}.at' in options:
        weights[f'{FEATURE}.weight'] = factor
    return config, options | weights


chosen, val = weighted_rows(ROWS, weighted, CHOSEN, (0.3, 1.0, 3.0))
variants = {'student alone': (ALONE, {})} | chosen
