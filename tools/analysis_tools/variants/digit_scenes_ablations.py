"""DiffKD on digit scenes with one thing changed at a time.

python tools/analysis_tools/compare_methods.py --seeds 5 \
    --variants tools/analysis_tools/variants/digit_scenes_ablations.py
"""

PAIR = 'resnet14-w24_resnet14-w4_1xb64-4e_digit-scenes'
CONFIG = f'configs/diffkd/diffkd_backbone_{PAIR}.py'
NECK = 'model.distill.feature.neck'
# One value a key, as on a command line.
LOGITS = {
    'model.distill.logits.at': 'head.fc',
    'model.distill.logits.neck.type': 'DiffKDNeck',
    'model.distill.logits.neck.feature': 'vector',
    'model.distill.logits.loss.type': 'KLDivergence',
    'model.distill.logits.loss.tau': 1.0,
}

CHANGES = {
    'DiffKD': {},
    'DiffKD, no noise matching': {f'{NECK}.noise_matching': False},
    **{
        f'DiffKD, {n} step{"s" * (n > 1)}': {f'{NECK}.num_inference_steps': n}
        for n in (1, 3, 10)
    },
    **{
        f'DiffKD, latent {width}': {f'{NECK}.latent_channels': width}
        for width in (16, 32, 128)
    },
    'DiffKD, logits': {'model.distill.feature': None, **LOGITS},
    'DiffKD, feature and logits': LOGITS,
}
variants = {label: (CONFIG, changes) for label, changes in CHANGES.items()}
