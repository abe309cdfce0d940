# The old name of this config, kept for one version.
_base_ = './mobilenet-v2_8xb96-450e_in1k.py'
