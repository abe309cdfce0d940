# The paper does not give the head. 80 channels, a quarter of what goes in, and
# no auxiliary head is our reading of the code base of its first author; the
# recipe of mmseg has 512 channels and an auxiliary head.
_base_ = [
    'mmseg::_base_/models/deeplabv3_r50-d8.py',
    '../_base_/datasets/cityscapes_512x1024.py',
    '../_base_/schedules/cityscapes_40k.py',
    'mmseg::_base_/default_runtime.py',
]

model = dict(
    data_preprocessor=dict(size=(512, 1024)),
    pretrained='mmcls://mobilenet_v2',
    backbone=dict(
        _delete_=True,
        type='MobileNetV2',
        widen_factor=1.0,
        strides=(1, 2, 2, 1, 1, 1, 1),
        dilations=(1, 1, 1, 2, 2, 4, 4),
        out_indices=(1, 2, 4, 6),
        norm_cfg=dict(type='SyncBN', requires_grad=True),
    ),
    decode_head=dict(in_channels=320, channels=80),
    auxiliary_head=None,
)
