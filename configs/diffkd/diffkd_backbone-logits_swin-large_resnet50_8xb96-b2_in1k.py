# The old name of this config, kept for one version.
_base_ = './diffkd_backbone-logits_swin-large_resnet50_8xb96-450e_in1k.py'
