"""DiffKD on digit scenes with the gradient through the last steps alone.

python tools/analysis_tools/compare_methods.py --seeds 5 \
    --variants tools/analysis_tools/variants/digit_scenes_grad_steps.py
"""

CONFIG = (
    'configs/diffkd/'
    'diffkd_backbone_resnet14-w24_resnet14-w4_1xb64-4e_digit-scenes.py'
)
variants = {'DiffKD': (CONFIG, {})} | {
    f'DiffKD, grad_steps {k}': (
        CONFIG,
        {'model.distill.feature.neck.grad_steps': k},
    )
    for k in (1, 2, 3)
}
