# A recipe sets depth and width. The maps are f1 to f3 of the literature,
# before any norm, and what is pooled.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmdiffkd.CIFARWideResNet',
        out_indices=(0, 1, 2, 3),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=100,
        # PyTorch's weights, and biases of 0.
        init_cfg=dict(
            type='Kaiming',
            layer='Linear',
            a=5**0.5,
            mode='fan_in',
            nonlinearity='leaky_relu',
            distribution='uniform',
        ),
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        topk=(1, 5),
    ),
)
