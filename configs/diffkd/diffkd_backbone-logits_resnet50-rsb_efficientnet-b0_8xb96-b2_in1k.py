# The old name of this config, kept for one version.
_base_ = (
    './diffkd_backbone-logits_resnet50-rsb_efficientnet-b0_8xb96-450e_in1k.py'
)
