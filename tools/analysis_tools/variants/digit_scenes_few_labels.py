r"""A student with few labels: alone, distilled, or pre-trained without any.

All of them take about as many steps: six epochs of all images, or as many over
fewer images. The pre-trained one takes the first four without labels, see
digit_scenes_unlabelled.py, and the last two with labels, without a teacher.

for labels in 1 10 100; do
    python tools/analysis_tools/compare_methods.py --seeds 5 --jobs 2 \
        --variants tools/analysis_tools/variants/digit_scenes_few_labels.py \
        --rows ", $labels %" --work-dir work_dirs/few_labels \
        --out work_dirs/few_labels/$labels
done

``val`` has six ways to pre-train, seen with 10 % of the labels, and two
learning rates for every row:

for what in start rate; do
    python tools/analysis_tools/compare_methods.py --split val --seeds 1 \
        --jobs 2 --work-dir work_dirs/few_labels_val --rows $what \
        --out work_dirs/few_labels_val/$what \
        --variants tools/analysis_tools/variants/digit_scenes_few_labels.py:val
done
"""

import runpy
from pathlib import Path

unlabelled = runpy.run_path(
    str(Path(__file__).with_name('digit_scenes_unlabelled.py'))
)
CONFIGS, RATE = unlabelled['CONFIGS'], unlabelled['RATE']
#: Every so many images has its label. They lie sorted by class.
LABELS = {'1 %': 100, '10 %': 10, '100 %': 1}
SCRATCH = 'model.init_cfg'
IMAGES = 12_000
#: Label to a config, its passes over as many images as there are in all, and
#: what is changed in it.
ROWS = {
    'alone': (CONFIGS['student alone'], 6, {SCRATCH: None}),
    'distilled': (CONFIGS['PKD'], 6, {'model.student.init_cfg': None}),
    'pre-trained': (CONFIGS['student alone'], 2, {SCRATCH: None}),
}
#: Chosen on val: the start, and rates other than 0.01.
PRETRAINED = 'PKD-rate-0.03'
CHOSEN = {
    ('alone', '10 %'): 0.03,
    ('distilled', '1 %'): 0.03,
    ('distilled', '10 %'): 0.03,
    ('distilled', '100 %'): 0.03,
}


def trained(
    name: str, labels: str, rate: float, start: str = PRETRAINED
) -> tuple[str, dict]:
    """A row of some labels, by its learning rate."""
    config, passes, options = ROWS[name]
    step = LABELS[labels]
    epochs = passes * step
    options = options | {
        RATE: rate,
        'train_dataloader.dataset.dataset.indices': list(
            range(0, IMAGES, step)
        ),
        'train_cfg.max_epochs': epochs,
        'train_cfg.val_interval': epochs,
        'default_hooks.checkpoint.interval': epochs,
    }
    if step == 1:
        del options['train_dataloader.dataset.dataset.indices']
    if name == 'pre-trained':
        options['load_from'] = (
            f'work_dirs/unlabelled/{start}/seed_{{seed}}/epoch_4.pth'
        )
    return config, options


variants = {
    f'{name}, {labels}': trained(
        name, labels, CHOSEN.get((name, labels), 0.01)
    )
    for labels in LABELS
    for name in ROWS
}
val = {
    f'start {loss}, {before:g}': trained(
        'pre-trained', '10 %', 0.01, f'{loss}-rate-{before:g}'
    )
    for loss in unlabelled['LOSSES']
    for before in (0.01, 0.03)
} | {
    f'{name}, {labels}, rate {rate:g}': trained(name, labels, rate)
    for labels in LABELS
    for name in ROWS
    for rate in (0.01, 0.03)
}
