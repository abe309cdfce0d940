# DSKD (reconstruction), with the weight published for LSH on ImageNet.
_base_ = './dskd_cifar100.py'

distill = dict(feature=dict(loss=dict(loss_weight=5.0)))
