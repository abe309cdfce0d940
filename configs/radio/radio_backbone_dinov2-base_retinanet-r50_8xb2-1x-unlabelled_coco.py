# The backbone of a RetinaNet learns from DINOv2, on images without labels.
# README.md has the command that trains the detector from it.
_base_ = [
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    '../_base_/teachers/dinov2-base.py',
    '../_base_/methods/radio.py',
    '../_base_/distillation.py',
]

model = dict(
    _delete_=True,
    type='mmdiffkd.Distiller',
    student=_base_.model,
    teacher=_base_.teacher,
    distill=dict(tokens=dict(teacher_at='backbone.ln1', **_base_.entry)),
    task_weight=0,
    input_size=448,
)
train_dataloader = dict(
    batch_sampler=None,  # it groups images by shapes in annotations
    dataset=dict(
        _delete_=True,
        type='BaseSegDataset',  # a folder of images, in mmdet
        data_root='data/coco/',
        data_prefix=dict(img_path='train2017/'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(
                type='RandomResize',
                scale=(1333, 800),
                ratio_range=(0.6, 1.2),
                keep_ratio=True,
            ),
            dict(type='RandomCrop', crop_size=(448, 448)),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs'),
        ],
    ),
)
val_dataloader = val_cfg = val_evaluator = None
optim_wrapper = _base_.distillation.optim_wrapper
default_hooks = _base_.distillation.default_hooks
