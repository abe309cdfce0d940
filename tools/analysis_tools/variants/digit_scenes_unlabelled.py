"""A student that learns from the teacher alone, on images without labels.

The recipe is that of the other students but for its start: the weights are
random, since the common start has seen labels. What each row brings is seen
when digit_scenes_few_labels.py fine-tunes it.

python tools/analysis_tools/compare_methods.py --seeds 5 --jobs 2 \
    --variants tools/analysis_tools/variants/digit_scenes_unlabelled.py \
    --rows "PKD, rate 0.03" --work-dir work_dirs/unlabelled
"""

import runpy
from pathlib import Path

METHODS = Path(__file__).with_name('digit_scenes_methods.py')
CONFIGS = runpy.run_path(str(METHODS))['CONFIGS']
ALONE = {'model.task_weight': 0.0, 'model.student.init_cfg': None}
RATE = 'optim_wrapper.optimizer.lr'
LOSSES = ('PKD', 'MSE', 'RADIO')


def pretrained(loss: str, rate: float) -> tuple[str, dict]:
    """The last map of the teacher by one of the losses."""
    options = ALONE | {RATE: rate}
    if loss == 'RADIO':
        return CONFIGS['MSE'], options | {
            'model.distill.feature.loss.type': 'RADIOLoss'
        }
    return CONFIGS[loss], options


variants = {
    f'{loss}, rate {rate:g}': pretrained(loss, rate)
    for loss in LOSSES
    for rate in (0.01, 0.03)
}
