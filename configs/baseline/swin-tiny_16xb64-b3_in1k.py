# The old name of this config, kept for one version.
_base_ = './swin-tiny_16xb64-300e_in1k.py'
