# The old name of this config, kept for one version.
_base_ = './resnet18_8xb32-100e_in1k.py'
