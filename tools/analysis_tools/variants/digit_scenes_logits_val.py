"""Weights for DiffKD at the logits alone, as the ablations have it.

python tools/analysis_tools/compare_methods.py --split val --seeds 1 \
    --variants tools/analysis_tools/variants/digit_scenes_logits_val.py \
    --work-dir work_dirs/val
"""

import runpy
from pathlib import Path

ABLATIONS = Path(__file__).with_name('digit_scenes_ablations.py')
CONFIG, CHANGES = runpy.run_path(str(ABLATIONS))['variants']['DiffKD, logits']

variants = {
    f'DiffKD, logits, weight {weight}': (
        CONFIG,
        {**CHANGES, 'model.distill.logits.weight': weight},
    )
    for weight in (0.1, 0.3, 1.0, 3.0)
}
