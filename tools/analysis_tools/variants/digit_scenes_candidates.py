r"""Denoisers that may earn their keep, on a classifier.

The rows of mmdiffkd/analysis/candidates.py, and combinations of methods that
need no denoiser at all. ``val`` has three weights for each:

python tools/analysis_tools/compare_methods.py --split val --seeds 3 \
    --jobs 2 --work-dir work_dirs/candidates_val \
    --variants tools/analysis_tools/variants/digit_scenes_candidates.py:val
"""

import runpy
from pathlib import Path

from mmdiffkd.analysis.comparison import weighted_rows

METHODS = Path(__file__).with_name('digit_scenes_methods.py')
CONFIGS = runpy.run_path(str(METHODS))['CONFIGS']
CANDIDATES = 'mmdiffkd.analysis.candidates'
CONTROLS = 'mmdiffkd.analysis.controls'
FEATURE, LOGITS = 'model.distill.feature', 'model.distill.logits'
STAGES = ['backbone.layer1', 'backbone.layer2', 'backbone.layer3']
KD = {
    f'{LOGITS}.at': 'head.fc',
    f'{LOGITS}.loss.type': 'KLDivergence',
    f'{LOGITS}.loss.tau': 4.0,
}
LENS = {
    f'{FEATURE}.teacher_head': 'head.fc',
    f'{FEATURE}.loss.type': 'KLDivergence',
    f'{FEATURE}.loss.tau': 4.0,
    f'{FEATURE}.loss.loss_weight': 1.0,
}


def necks(name: str, **options) -> dict:
    return {f'{FEATURE}.neck.type': name} | {
        f'{FEATURE}.neck.{key}': value for key, value in options.items()
    }


#: Label to a method whose config it changes, what it changes, and the entry
#: whose weight is chosen.
ROWS = {
    # No denoiser.
    'PKD, and KD': ('PKD', KD, FEATURE),
    'linear projector, and KD': (
        'DiffKD',
        necks(f'{CONTROLS}.LinearProjectorNeck') | KD,
        FEATURE,
    ),
    'linear projector, three stages': (
        'DiffKD',
        necks(
            f'{CONTROLS}.LinearProjectorNeck',
            latent_channels=None,
            standardize_teacher=True,
        )
        | {f'{FEATURE}.at': STAGES},
        FEATURE,
    ),
    'lens': ('MSE', necks(f'{CANDIDATES}.LensNeck') | LENS, FEATURE),
    'standardised logits': (
        'KD',
        {
            f'{LOGITS}.neck.type': f'{CANDIDATES}.StandardizedLogitsNeck',
            f'{LOGITS}.loss.tau': 1.0,
        },
        LOGITS,
    ),
    # Denoisers.
    'DiffKD, and KD': ('DiffKD', KD, FEATURE),
    'DiffKD, three stages': (
        'DiffKD',
        necks('DiffKDNeck', latent_channels=None, standardize_teacher=True)
        | {f'{FEATURE}.at': STAGES},
        FEATURE,
    ),
    'DiffKD through the lens': (
        'MSE',
        necks('DiffKDClassifierNeck') | LENS,
        FEATURE,
    ),
    'clean diffusion': (
        'MSE',
        necks(f'{CANDIDATES}.CleanDiffusionNeck'),
        FEATURE,
    ),
    'flow': ('MSE', necks(f'{CANDIDATES}.FlowNeck'), FEATURE),
    'anchored': (
        'KD',
        {
            f'{LOGITS}.neck.type': f'{CANDIDATES}.AnchoredNeck',
            f'{LOGITS}.loss.tau': 1.0,
        },
        LOGITS,
    ),
    'refined target': (
        'KD',
        {
            f'{LOGITS}.neck.type': f'{CANDIDATES}.RefinedTargetNeck',
            f'{LOGITS}.loss.tau': 1.0,
        },
        LOGITS,
    ),
}
#: Weights other than 1, chosen on val.
CHOSEN: dict[str, float] = {}


def weighted(label: str, weight: float) -> tuple[str, dict]:
    """A row by its weight."""
    method, options, entry = ROWS[label]
    return CONFIGS[method], options | {f'{entry}.weight': weight}


chosen, val = weighted_rows(ROWS, weighted, CHOSEN, (1.0, 3.0, 9.0))
plain = ('DiffKD', 'student alone', 'PKD', 'ReviewKD')
variants = {label: (CONFIGS[label], {}) for label in plain} | chosen
