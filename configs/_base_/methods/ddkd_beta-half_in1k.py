# DKD on the student's own logits, and DiffKD's feature branch.
_base_ = './dkd_beta-half_in1k.py'

distill = dict(
    feature=dict(
        at='backbone[-1]',
        neck=dict(type='DiffKDNeck', latent_channels=1024),
        loss=dict(type='MSELoss'),
    )
)
