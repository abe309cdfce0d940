# What the detectors on digit scenes have in common: a ResNet-18 from scratch
# and a pyramid of three levels, of strides 8, 16 and 32. A recipe sets the
# widths.
model = dict(
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[66.51, 62.63, 55.20],
        std=[51.27, 42.29, 44.44],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type='ResNet', depth=18, out_indices=(1, 2, 3), norm_eval=False
    ),
    neck=dict(type='FPN', num_outs=3),
)
