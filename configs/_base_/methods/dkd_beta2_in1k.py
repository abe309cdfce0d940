# ResNet-50 to MobileNetV1.
_base_ = './dkd_beta-half_in1k.py'

distill = dict(logits=dict(loss=dict(beta=2.0)))
