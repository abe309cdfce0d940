r"""Every method on digit scenes, as configured.

python tools/analysis_tools/compare_methods.py --seeds 5 \
    --variants tools/analysis_tools/variants/digit_scenes_methods.py

``val`` has three weights for each of them, a factor of three apart:

python tools/analysis_tools/compare_methods.py --split val --seeds 1 \
    --variants tools/analysis_tools/variants/digit_scenes_methods.py:val
"""

from mmdiffkd.utils import load_config

PAIR = 'resnet14-w24_resnet14-w4_1xb64-4e_digit-scenes'
METHODS = {
    'KD': 'kd/kd_logits',
    'DKD': 'dkd/dkd_logits',
    'DIST': 'dist/dist_logits',
    'logit projector': 'pefd/logit-projector_logits',
    'MSE': 'mse/mse_backbone',
    'FitNet': 'fitnet/fitnet_stage2',
    'AT': 'at/at_stages',
    'SP': 'sp/sp_backbone',
    'VID': 'vid/vid_stages',
    'RKD': 'rkd/rkd_pooled',
    'PKT': 'pkt/pkt_pooled',
    'CRD': 'crd/crd_pooled',
    'LSH': 'lsh/lsh_pooled',
    'CWD': 'cwd/cwd_backbone',
    'PKD': 'pkd/pkd_backbone',
    'MGD': 'mgd/mgd_backbone',
    'ReviewKD': 'reviewkd/reviewkd_stages',
    'PEFD': 'pefd/pefd_pooled',
    'DiffKD': 'diffkd/diffkd_backbone',
    'DDKD': 'ddkd/ddkd_backbone-logits',
    'DSKD (reconstruction)': 'dskd/dskd_backbone',
}
CONFIGS = {
    'student alone': 'configs/baseline/resnet14-w4_1xb64-4e_digit-scenes.py'
} | {label: f'configs/{name}_{PAIR}.py' for label, name in METHODS.items()}
variants = {label: (config, {}) for label, config in CONFIGS.items()}

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


def weights(method: str) -> dict[str, tuple[str, dict]]:
    """A method with its three weights."""
    config, found = CONFIGS[method], {}
    entries = load_config(config).model.distill
    for factor in (0.3, 1.0, 3.0):
        weight = round(factor * MIDDLE.get(method, 1.0), 4)
        found[f'{method}, weight {weight:g}'] = (
            config,
            {f'model.distill.{entry}.weight': weight for entry in entries},
        )
    return found


val = {
    f'student alone, lr {lr}': (
        CONFIGS['student alone'],
        {'optim_wrapper.optimizer.lr': lr},
    )
    for lr in (0.01, 0.03, 0.1)
}
for method in METHODS:
    val |= weights(method)
