# The old name of this config, kept for one version.
_base_ = './kd_logits_resnet34_resnet18_8xb32-100e_in1k.py'
