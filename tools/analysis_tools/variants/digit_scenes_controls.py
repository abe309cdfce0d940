r"""DiffKD at the last map, and what it is compared with to see what helps.

python tools/analysis_tools/compare_methods.py --seeds 5 --jobs 2 \
    --variants tools/analysis_tools/variants/digit_scenes_controls.py \
    --work-dir work_dirs/controls --out work_dirs/controls/last_map

``ten_seeds`` has the rows that the conclusions rest on, and goes on from that
table:

python tools/analysis_tools/compare_methods.py --seeds 10 --jobs 2 \
    --known docs/results_controls.csv \
    --variants \
    tools/analysis_tools/variants/digit_scenes_controls.py:ten_seeds \
    --work-dir work_dirs/controls --out work_dirs/controls/ten_seeds

``val`` has three weights for every control, a factor of three apart:

python tools/analysis_tools/compare_methods.py --split val --seeds 1 \
    --jobs 2 --work-dir work_dirs/controls_val \
    --out work_dirs/controls_val/last_map \
    --variants tools/analysis_tools/variants/digit_scenes_controls.py:val
"""

import runpy
from pathlib import Path

from mmdiffkd.analysis.comparison import weighted_rows

METHODS = Path(__file__).with_name('digit_scenes_methods.py')
CONFIGS = runpy.run_path(str(METHODS))['CONFIGS']
ENTRY = 'model.distill.feature'
NECK = f'{ENTRY}.neck'
CONTROLS = 'mmdiffkd.analysis.controls'


def neck(name: str, **options) -> dict:
    return {f'{NECK}.type': f'{CONTROLS}.{name}'} | {
        f'{NECK}.{key}': value for key, value in options.items()
    }


def of(method: str, options: dict) -> tuple[str, dict]:
    return CONFIGS[method], options


#: Label to a config, and what is changed in it but for the weight.
ROWS = {
    'DiffKD, 1 step': of('DiffKD', {f'{NECK}.num_inference_steps': 1}),
    'DiffKD, no noise matching': of(
        'DiffKD', {f'{NECK}.noise_matching': False}
    ),
    'DiffKD, no diffusion loss': of('DiffKD', {f'{NECK}.diffusion_weight': 0}),
    'DiffKD, grad_steps=0': of('DiffKD', {f'{NECK}.grad_steps': 0}),
    'DiffKD, untrained denoiser': of(
        'DiffKD', neck('FrozenDenoiserNeck', diffusion_weight=0)
    ),
    'DiffKD, one timestep': of('DiffKD', neck('OneTimestepNeck')),
    'DiffKD, standardised': of(
        'DiffKD', {f'{NECK}.standardize_teacher': True}
    ),
    'projector': of('DiffKD', neck('ProjectorNeck')),
    'projector, standardised': of(
        'DiffKD', neck('ProjectorNeck', standardize_teacher=True)
    ),
    'projector, standardised, no autoencoder': of(
        'DiffKD',
        neck('ProjectorNeck', standardize_teacher=True, latent_channels=None),
    ),
    'linear projector, batch norm': of('DiffKD', neck('LinearProjectorNeck')),
    'MSE, standardised': of('MSE', neck('StandardizedTargetNeck')),
}
#: Weights other than 1, chosen on val.
CHOSEN: dict[str, float] = {
    'DiffKD, 1 step': 3.0,
    'DiffKD, no diffusion loss': 0.3,
    'DiffKD, untrained denoiser': 3.0,
    'DiffKD, standardised': 3.0,
    'projector': 3.0,
    'projector, standardised': 0.3,
    'projector, standardised, no autoencoder': 3.0,
    'linear projector, batch norm': 3.0,
}


def weighted(label: str, weight: float) -> tuple[str, dict]:
    """A row by its weight."""
    config, options = ROWS[label]
    return config, options | {f'{ENTRY}.weight': weight}


chosen, grid = weighted_rows(ROWS, weighted, CHOSEN, (0.3, 1.0, 3.0))
#: The first is what the others are compared with.
plain = ('DiffKD', 'student alone', 'MSE', 'PKD', 'ReviewKD')
variants = {label: (CONFIGS[label], {}) for label in plain} | chosen
#: What the conclusions rest on.
ten_seeds = {
    label: variants[label]
    for label in (
        'DiffKD',
        'PKD',
        'ReviewKD',
        'DiffKD, untrained denoiser',
        'projector',
        'linear projector, batch norm',
        'MSE, standardised',
    )
}
val = grid | {'PKD, weight 9': of('PKD', {f'{ENTRY}.weight': 9.0})}
