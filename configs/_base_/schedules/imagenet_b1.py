# The old name of this config, kept for one version.
_base_ = './imagenet_sgd-100e.py'
