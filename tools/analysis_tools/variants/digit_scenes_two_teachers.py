"""Two teachers, each alone and both, at the logits and at the last map.

The second teacher is the first one trained with another seed:

python tools/train.py \
    configs/baseline/resnet14-w24_1xb64-6e_digit-scenes.py \
    --work-dir work_dirs/second_teacher --cfg-options randomness.seed=1

python tools/analysis_tools/compare_methods.py --seeds 5 --jobs 2 \
    --variants tools/analysis_tools/variants/digit_scenes_two_teachers.py \
    --work-dir work_dirs/two_teachers
"""

import runpy
from pathlib import Path

METHODS = Path(__file__).with_name('digit_scenes_methods.py')
CONFIGS = runpy.run_path(str(METHODS))['CONFIGS']
TEACHER = 'resnet14-w24_1xb64-6e_digit-scenes'
CHECKPOINTS = {
    'first': f'work_dirs/{TEACHER}/epoch_6.pth',
    'second': 'work_dirs/second_teacher/epoch_6.pth',
}
BOTH = {'model.teacher': None} | {
    f'model.teachers.{name}.{key}': value
    for name, checkpoint in CHECKPOINTS.items()
    for key, value in {
        'config': f'mmdiffkd::baseline/{TEACHER}.py',
        'checkpoint': checkpoint,
    }.items()
}
SECOND = {'model.teacher.checkpoint': CHECKPOINTS['second']}
FEATURE = 'model.distill.feature'
AGAIN = 'model.distill.second'
#: Each teacher's map by an entry of its own. Half the weight each, so that
#: the sum of both is what one teacher's entry has.
TWO_ENTRIES = {
    f'{FEATURE}.teacher': 'first',
    f'{FEATURE}.weight': 4.5,
    f'{AGAIN}.teacher': 'second',
    f'{AGAIN}.at': 'backbone[-1]',
    f'{AGAIN}.neck.type': 'ProjectionNeck',
    f'{AGAIN}.loss.type': 'PKDLoss',
    f'{AGAIN}.loss.loss_weight': 6.0,
    f'{AGAIN}.weight': 4.5,
}
#: The logits of both are averaged.
logits = {
    'student alone': (CONFIGS['student alone'], {}),
    'KD, first': (CONFIGS['KD'], {}),
    'KD, second': (CONFIGS['KD'], SECOND),
    'KD, both': (
        CONFIGS['KD'],
        BOTH | {'model.distill.logits.teacher': ['first', 'second']},
    ),
}
maps = {
    'PKD, first': (CONFIGS['PKD'], {}),
    'PKD, second': (CONFIGS['PKD'], SECOND),
    'PKD, both': (CONFIGS['PKD'], BOTH | TWO_ENTRIES),
}
variants = logits | maps
