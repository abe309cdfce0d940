# ResNet-56 to ResNet-20.
_base_ = './dkd_beta8_cifar100.py'

distill = dict(logits=dict(loss=dict(beta=2.0)))
