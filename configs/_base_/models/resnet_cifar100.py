# A recipe sets depth and width. The maps are f1 to f3 of the literature.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmdiffkd.CIFARResNet',
        out_indices=(0, 1, 2),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=100,
        in_channels=64,
        init_cfg=None,  # PyTorch's
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        topk=(1, 5),
    ),
)
