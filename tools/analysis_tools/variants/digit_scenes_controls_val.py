"""Three weights for every control at the last map, a factor of three apart.

python tools/analysis_tools/compare_methods.py --split val --seeds 1 \
    --jobs 2 --work-dir work_dirs/controls_val \
    --out work_dirs/controls_val/last_map \
    --variants tools/analysis_tools/variants/digit_scenes_controls_val.py
"""

import runpy
from pathlib import Path

controls = runpy.run_path(
    str(Path(__file__).with_name('digit_scenes_controls.py'))
)
variants = {
    f'{label}, weight {weight:g}': (
        config,
        {**options, f'{controls["ENTRY"]}.weight': weight},
    )
    for label, (config, options) in controls['ROWS'].items()
    for weight in (0.3, 1.0, 3.0)
}
variants['PKD, weight 9'] = (
    controls['CONFIGS']['PKD'],
    {f'{controls["ENTRY"]}.weight': 9.0},
)
