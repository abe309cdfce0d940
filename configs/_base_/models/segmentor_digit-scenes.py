# What the segmentors on digit scenes have in common: a ResNet-18 from scratch,
# of strides 4, 8, 16 and 16, and a head over all four stages at a stride of 4,
# since strokes are thin. A recipe sets the widths.
#
# With batch norm in the heads the digits are told from the background and not
# from each other, for more iterations than there are.
head_norm_cfg = dict(type='GN', num_groups=2)
# Nine pixels of ten are background.
loss_decode = dict(type='CrossEntropyLoss', class_weight=[0.1] + [1.0] * 10)
init_cfg = dict(type='Normal', std=0.1, override=dict(name='conv_seg'))
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
        strides=(1, 2, 2, 1),
        zero_init_residual=False,
    ),
    decode_head=dict(
        in_index=(0, 1, 2, 3),
        input_transform='resize_concat',
        num_classes=11,
        dropout_ratio=0.0,
        norm_cfg=head_norm_cfg,
        align_corners=False,
        init_cfg=init_cfg,
        loss_decode=loss_decode,
    ),
    auxiliary_head=dict(
        type='FCNHead',
        in_index=2,
        num_convs=1,
        concat_input=False,
        num_classes=11,
        dropout_ratio=0.0,
        norm_cfg=head_norm_cfg,
        align_corners=False,
        init_cfg=init_cfg,
        loss_decode=dict(loss_weight=0.4, **loss_decode),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
