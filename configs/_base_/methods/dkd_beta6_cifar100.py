# WRN-40-2 to WRNs, and VGG-13 as teacher.
_base_ = './dkd_beta8_cifar100.py'

distill = dict(logits=dict(loss=dict(beta=6.0)))
