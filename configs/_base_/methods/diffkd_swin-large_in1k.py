# The latent width for a Swin-L teacher (B.2 of the paper).
_base_ = './diffkd_in1k.py'

distill = dict(feature=dict(neck=dict(latent_channels=768)))
