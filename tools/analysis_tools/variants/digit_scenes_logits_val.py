"""Three weights for every row at the logits, a factor of three apart.

python tools/analysis_tools/compare_methods.py --split val --seeds 1 \
    --jobs 2 --work-dir work_dirs/controls_val \
    --out work_dirs/controls_val/logits \
    --variants tools/analysis_tools/variants/digit_scenes_logits_val.py
"""

import runpy
from pathlib import Path

logits = runpy.run_path(
    str(Path(__file__).with_name('digit_scenes_logits.py'))
)
variants = {
    f'{label}, weight {weight:g}': logits['weighted'](label, weight)
    for label in logits['ROWS']
    for weight in (0.3, 1.0, 3.0)
}
