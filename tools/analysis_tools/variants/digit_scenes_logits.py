r"""DiffKD at the logits, and what it is compared with to see what helps.

python tools/analysis_tools/compare_methods.py --seeds 5 --jobs 2 \
    --variants tools/analysis_tools/variants/digit_scenes_logits.py \
    --work-dir work_dirs/controls --out work_dirs/controls/logits

``val`` has three weights for every row, a factor of three apart:

python tools/analysis_tools/compare_methods.py --split val --seeds 1 \
    --jobs 2 --work-dir work_dirs/controls_val \
    --out work_dirs/controls_val/logits \
    --variants tools/analysis_tools/variants/digit_scenes_logits.py:val
"""

import runpy
from pathlib import Path

from mmdiffkd.analysis.comparison import weighted_rows

METHODS = Path(__file__).with_name('digit_scenes_methods.py')
CONFIGS = runpy.run_path(str(METHODS))['CONFIGS']
ENTRY = 'model.distill.logits'


def of(method: str, options: dict) -> tuple[str, dict]:
    return CONFIGS[method], options


def pooled(neck: str) -> dict:
    """A second entry, at the pooled feature."""
    return {
        'model.distill.pooled.at': 'neck[-1]',
        'model.distill.pooled.neck.type': neck,
        'model.distill.pooled.loss.type': 'MSELoss',
        'model.distill.pooled.loss.loss_weight': 10.0,
    }


DENOISED = {f'{ENTRY}.neck.type': 'DiffKDNeck', f'{ENTRY}.loss.tau': 1.0}
#: Label to a config, and what is changed in it but for the weights.
ROWS = {
    'KD': of('KD', {}),
    'KD, temperature 1': of('KD', {f'{ENTRY}.loss.tau': 1.0}),
    'DKD': of('DKD', {}),
    'KD, one linear layer': of('logit projector', {}),
    'DiffKD, logits': of('KD', DENOISED),
    'DiffKD, logits, no projections': of(
        'KD',
        DENOISED
        | {f'{ENTRY}.neck.type': 'mmdiffkd.analysis.controls.UnprojectedNeck'},
    ),
    'DiffKD, pooled, and KD': of('KD', pooled('DiffKDNeck')),
    'MSE, pooled, and KD': of('KD', pooled('ProjectionNeck')),
}
#: Weights other than 1, chosen on val.
CHOSEN: dict[str, float] = {
    'KD, temperature 1': 3.0,
    'DKD': 3.0,
    'DiffKD, logits, no projections': 0.3,
    'DiffKD, pooled, and KD': 0.3,
    'MSE, pooled, and KD': 3.0,
}


def weighted(label: str, weight: float) -> tuple[str, dict]:
    """A row whose entries have this weight."""
    config, options = ROWS[label]
    weights = {f'{ENTRY}.weight': weight}
    if 'model.distill.pooled.at' in options:
        weights['model.distill.pooled.weight'] = weight
    return config, options | weights


chosen, val = weighted_rows(ROWS, weighted, CHOSEN, (0.3, 1.0, 3.0))
#: The first is what the others are compared with.
variants = {
    'KD': chosen.pop('KD'),
    'student alone': (CONFIGS['student alone'], {}),
} | chosen
