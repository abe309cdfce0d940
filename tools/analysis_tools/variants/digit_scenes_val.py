"""Four settings a method: what the digit-scene configs were chosen from.

python tools/analysis_tools/compare_methods.py --split val --seeds 1 \
    --jobs 2 --variants tools/analysis_tools/variants/digit_scenes_val.py \
    --work-dir work_dirs/val
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
#: Those whose four settings all ended below the student alone got six more:
#: smaller weights, and the same four with a slow start.
BELOW = ('DIST', 'RKD', 'CRD')


def scaled(method, factor, **schedule):
    """Scale a method's weights, and schedule them if asked to."""
    config, entries = METHODS[method]
    settings = {'weight': factor} | {
        f'schedule.{key}': value for key, value in schedule.items()
    }
    return f'configs/{config}_{PAIR}.py', {
        f'model.distill.{entry}.{key}': value
        for entry in entries
        for key, value in settings.items()
    }


variants |= {
    f'{method}, weights x {factor}': scaled(method, factor)
    for method in METHODS
    for factor in (0.1, 0.3, 1.0, 3.0)
}
variants |= {
    f'{method}, slow start, weights x {factor}': scaled(
        method, factor, warmup=2
    )
    for method in BELOW
    for factor in (0.1, 0.3, 1.0, 3.0)
}
variants |= {
    f'{method}, weights x {factor}': scaled(method, factor)
    for method in BELOW
    for factor in (0.01, 0.03)
}
