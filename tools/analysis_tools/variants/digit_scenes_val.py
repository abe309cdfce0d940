"""Three weights for every method, a factor of three apart.

python tools/analysis_tools/compare_methods.py --split val --seeds 1 \
    --jobs 2 --variants tools/analysis_tools/variants/digit_scenes_val.py
"""

import runpy
from pathlib import Path

from mmdiffkd.utils import load_config

METHODS = Path(__file__).with_name('digit_scenes_methods.py')
CONFIGS = runpy.run_path(str(METHODS))['CONFIGS']
#: The middle one of a method's three weights, where it is not 1.
MIDDLE = {
    'DKD': 0.3,
    'DIST': 0.01,
    'AT': 0.1,
    'VID': 3.0,
    'RKD': 0.01,
    'PKT': 0.3,
    'CRD': 0.01,
    'CWD': 3.0,
    'PKD': 3.0,
    'MGD': 3.0,
    'ReviewKD': 3.0,
    'DSKD (reconstruction)': 0.3,
}

student = CONFIGS.pop('student alone')
variants = {
    f'student alone, lr {lr}': (student, {'optim_wrapper.optimizer.lr': lr})
    for lr in (0.01, 0.03, 0.1)
}
for method, config in CONFIGS.items():
    entries = load_config(config).model.distill
    for factor in (0.3, 1.0, 3.0):
        weight = round(factor * MIDDLE.get(method, 1.0), 4)
        variants[f'{method}, weight {weight:g}'] = (
            config,
            {f'model.distill.{entry}.weight': weight for entry in entries},
        )
