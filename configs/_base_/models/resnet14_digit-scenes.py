# Three stages of two basic blocks, the first at half resolution. A recipe
# sets the three widths.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='ResNet_CIFAR',
        depth=18,
        num_stages=3,
        strides=(2, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(2,),
        zero_init_residual=False,
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        loss=dict(type='CrossEntropyLoss'),
        # mmpretrain's 0.01 keeps these short trainings at chance for long.
        init_cfg=dict(type='Normal', layer='Linear', std=0.1),
    ),
)
