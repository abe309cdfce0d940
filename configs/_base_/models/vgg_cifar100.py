# A recipe sets the depth. The maps are f1 to f4 of the literature, which
# counts the first stage as f0.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmdiffkd.CIFARVGG',
        out_indices=(1, 2, 3, 4),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=100,
        in_channels=512,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        topk=(1, 5),
    ),
)
