# DKD on the student's own logits, and DiffKD's feature branch.
_base_ = './dkd_beta2_cifar100.py'

distill = dict(
    feature=dict(
        at='backbone[-1]',
        neck=dict(type='DiffKDNeck'),
        loss=dict(type='MSELoss'),
    )
)
