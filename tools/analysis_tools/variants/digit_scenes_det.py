r"""DiffKD at the pyramid of a RetinaNet, and what tells whether it helps.

python tools/train.py \
    configs/baseline/retinanet-w24_1xb16-6e_digit-scenes-det.py  # the teacher
python tools/analysis_tools/compare_methods.py --seeds 3 --jobs 2 \
    --variants tools/analysis_tools/variants/digit_scenes_det.py \
    --work-dir work_dirs/controls_det

``val`` has three weights for every row, a factor of three apart:

python tools/analysis_tools/compare_methods.py --split val --seeds 1 \
    --jobs 2 --work-dir work_dirs/controls_det_val \
    --variants tools/analysis_tools/variants/digit_scenes_det.py:val
"""

from mmdiffkd.analysis.comparison import weighted_rows

PAIR = 'retinanet-w24_retinanet-w8_1xb16-6e_digit-scenes-det'
ALONE = 'configs/baseline/retinanet-w8_1xb16-6e_digit-scenes-det.py'
MSE = f'configs/mse/mse_fpn-reg_{PAIR}.py'
FGD = f'configs/fgd/fgd_fpn_{PAIR}.py'
DIFFKD = f'configs/diffkd/diffkd_fpn-reg_{PAIR}.py'
ENTRIES = 'model.distill'
PROJECTOR = 'mmdiffkd.analysis.controls.ProjectorNeck'
#: Label to a config, what is changed in it but for the weights, and the
#: entries whose weights are chosen.
ROWS = {
    'MSE': (MSE, {}, ('fpn', 'reg')),
    'FGD': (FGD, {}, ('fpn',)),
    'DiffKD': (DIFFKD, {}, ('fpn', 'reg')),
    'projector': (
        DIFFKD,
        {f'{ENTRIES}.fpn.neck.type': PROJECTOR},
        ('fpn', 'reg'),
    ),
    # Classes are compared without a neck, besides.
    'DiffKD, and classes': (
        DIFFKD,
        {
            f'{ENTRIES}.cls.at': 'bbox_head.retina_cls',
            f'{ENTRIES}.cls.loss.type': 'BinaryKLDivergence',
        },
        ('fpn', 'reg', 'cls'),
    ),
}
#: Weights other than 1, chosen on val.
CHOSEN: dict[str, float] = {}


def weighted(label: str, weight: float) -> tuple[str, dict]:
    """A row by its weight."""
    config, options, entries = ROWS[label]
    weights = {f'{ENTRIES}.{entry}.weight': weight for entry in entries}
    return config, options | weights


chosen, val = weighted_rows(ROWS, weighted, CHOSEN, (0.3, 1.0, 3.0))
variants = {'student alone': (ALONE, {})} | chosen
