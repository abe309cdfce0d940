# The maps are f1 to f4 of the literature and what is pooled.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmdiffkd.CIFARMobileNetV2',
        widen_factor=0.5,
        out_indices=(0, 1, 2, 3, 4),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=100,
        in_channels=1280,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        topk=(1, 5),
    ),
)
