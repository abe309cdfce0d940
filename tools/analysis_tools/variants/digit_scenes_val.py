"""Three weights for every method, a factor of three apart.

python tools/analysis_tools/compare_methods.py --split val --seeds 1 \
    --jobs 2 --variants tools/analysis_tools/variants/digit_scenes_val.py
"""

from mmdiffkd.utils import load_config

PAIR = 'resnet14-w24_resnet14-w4_1xb64-4e_digit-scenes'
STUDENT = 'configs/baseline/resnet14-w4_1xb64-4e_digit-scenes.py'
#: The config, and the middle one of the three weights of its entries.
METHODS = {
    'MSE': ('mse/mse_backbone', 1.0),
    'DiffKD': ('diffkd/diffkd_backbone', 1.0),
    'PKD': ('pkd/pkd_backbone', 3.0),
    'ReviewKD': ('reviewkd/reviewkd_stages', 3.0),
    'KD': ('kd/kd_logits', 1.0),
    'DIST': ('dist/dist_logits', 0.01),
    'DKD': ('dkd/dkd_logits', 0.3),
    'logit projector': ('pefd/logit-projector_logits', 1.0),
    'FitNet': ('fitnet/fitnet_stage2', 1.0),
    'AT': ('at/at_stages', 0.1),
    'SP': ('sp/sp_backbone', 1.0),
    'VID': ('vid/vid_stages', 3.0),
    'RKD': ('rkd/rkd_pooled', 0.01),
    'PKT': ('pkt/pkt_pooled', 0.3),
    'CRD': ('crd/crd_pooled', 0.01),
    'LSH': ('lsh/lsh_pooled', 1.0),
    'CWD': ('cwd/cwd_backbone', 3.0),
    'MGD': ('mgd/mgd_backbone', 3.0),
    'PEFD': ('pefd/pefd_pooled', 1.0),
    'DDKD': ('ddkd/ddkd_backbone-logits', 1.0),
    'DSKD (reconstruction)': ('dskd/dskd_backbone', 0.3),
}

variants = {
    f'student alone, lr {lr}': (STUDENT, {'optim_wrapper.optimizer.lr': lr})
    for lr in (0.01, 0.03, 0.1)
}
for method, (name, middle) in METHODS.items():
    config = f'configs/{name}_{PAIR}.py'
    for factor in (0.3, 1.0, 3.0):
        weight = round(factor * middle, 4)
        variants[f'{method}, weight {weight:g}'] = (
            config,
            {
                f'model.distill.{entry}.weight': weight
                for entry in load_config(config).model.distill
            },
        )
