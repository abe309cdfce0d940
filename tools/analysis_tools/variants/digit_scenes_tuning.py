"""Four settings a method: what the digit-scene configs were chosen from.

python tools/analysis_tools/compare_methods.py --split tuning --seeds 2 \
    --variants tools/analysis_tools/variants/digit_scenes_tuning.py
"""

PAIR = 'resnet14-w24_resnet14-w4_1xb64-20e_digit-scenes'
MSE = f'configs/mse/mse_backbone_{PAIR}.py'
KD = f'configs/kd/kd_logits_{PAIR}.py'
DIFFKD = f'configs/diffkd/diffkd_backbone_{PAIR}.py'

variants = {
    f'student alone, lr {lr}': (
        'configs/baseline/resnet14-w4_1xb64-20e_digit-scenes.py',
        {'optim_wrapper.optimizer.lr': lr},
    )
    for lr in (0.1, 0.05, 0.2, 0.3)
}
variants |= {
    f'MSE, weight {weight}': (
        MSE,
        {'model.distill.feature.loss.loss_weight': weight},
    )
    for weight in (1.0, 2.0, 5.0, 10.0)
}
variants |= {
    f'KD, temperature {tau}, weight {weight}': (
        KD,
        {
            'model.distill.logits.loss.tau': tau,
            'model.distill.logits.loss.loss_weight': weight,
        },
    )
    for tau, weight in ((1.0, 1.0), (4.0, 1.0), (4.0, 3.0), (2.0, 2.0))
}
variants |= {
    f'DiffKD, weight {weight}': (
        DIFFKD,
        {'model.distill.feature.loss.loss_weight': weight},
    )
    for weight in (1.0, 2.0, 5.0, 10.0)
}

#: Config, and the entries whose weights are multiplied together. The weights
#: in the configs are the published ones, or these scaled to small maps.
METHODS = {
    'DKD': ('dkd/dkd_logits', ['logits']),
    'DIST': ('dist/dist_logits', ['logits']),
    'FitNet': ('fitnet/fitnet_stage2', ['hint']),
    'AT': ('at/at_stages', ['stages']),
    'SP': ('sp/sp_backbone', ['feature']),
    'VID': ('vid/vid_stages', ['stages']),
    'RKD': ('rkd/rkd_pooled', ['distance', 'angle']),
    'PKT': ('pkt/pkt_pooled', ['pooled']),
    'CRD': ('crd/crd_pooled', ['pooled']),
    'LSH': ('lsh/lsh_pooled', ['pooled']),
    'CWD': ('cwd/cwd_backbone', ['feature']),
    'PKD': ('pkd/pkd_backbone', ['feature']),
    'MGD': ('mgd/mgd_backbone', ['feature']),
    'ReviewKD': ('reviewkd/reviewkd_stages', ['stages']),
    'PEFD': ('pefd/pefd_pooled', ['pooled']),
    'logit projector': ('pefd/logit-projector_logits', ['logits']),
    'DDKD, DKD': ('ddkd/ddkd_backbone-logits', ['logits']),
    'DSKD (reconstruction)': ('dskd/dskd_backbone', ['feature']),
}
variants |= {
    f'{method}, weights x {factor}': (
        f'configs/{config}_{PAIR}.py',
        {f'model.distill.{entry}.weight': factor for entry in entries},
    )
    for method, (config, entries) in METHODS.items()
    for factor in (0.1, 0.3, 1.0, 3.0)
}
# DIST in full from the first step on stayed at chance level.
variants |= {
    f'DIST, slow start, weights x {factor}': (
        f'configs/dist/dist_logits_{PAIR}.py',
        {
            'model.distill.logits.weight': factor,
            'model.distill.logits.schedule.warmup': 2,
        },
    )
    for factor in (0.1, 0.3, 1.0, 3.0)
}
