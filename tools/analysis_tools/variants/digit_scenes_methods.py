"""Every method on digit scenes, as configured.

python tools/analysis_tools/compare_methods.py --seeds 5 \
    --variants tools/analysis_tools/variants/digit_scenes_methods.py
"""

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
