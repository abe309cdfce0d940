# The old name of this config, kept for one version.
_base_ = './diffkd_backbone-logits_swin-large_swin-tiny_16xb64-300e_in1k.py'
