# What the segmentors on digit scenes have in common: three stages of a
# ResNet-18 from scratch, all at a stride of 4, since strokes are thin. A
# recipe sets the widths.
norm_cfg = dict(type='BN', requires_grad=True)
# Nine pixels of ten are background.
class_weight = [0.2] + [1.0] * 10
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[64.80, 61.97, 54.69],
        std=[51.60, 41.64, 43.41],
        bgr_to_rgb=True,
        size=(96, 192),
        seg_pad_val=255,
    ),
    backbone=dict(
        type='ResNet',
        depth=18,
        num_stages=3,
        strides=(1, 1, 1),
        dilations=(1, 2, 4),
        out_indices=(1, 2),
        contract_dilation=True,
        norm_cfg=norm_cfg,
    ),
    decode_head=dict(
        in_index=1,
        num_classes=11,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', class_weight=class_weight),
    ),
    auxiliary_head=dict(
        type='FCNHead',
        in_index=0,
        num_convs=1,
        concat_input=False,
        num_classes=11,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(
            type='CrossEntropyLoss', class_weight=class_weight, loss_weight=0.4
        ),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
