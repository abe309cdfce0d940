# mmpretrain's ResNet-50 for CIFAR, initialised as the literature's. The maps
# are f1 to f4.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='ResNet_CIFAR',
        depth=50,
        out_indices=(0, 1, 2, 3),
        zero_init_residual=False,
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=100,
        in_channels=2048,
        init_cfg=None,  # PyTorch's
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        topk=(1, 5),
    ),
)
