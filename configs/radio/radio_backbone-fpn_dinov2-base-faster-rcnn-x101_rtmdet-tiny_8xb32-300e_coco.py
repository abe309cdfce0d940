# Two teachers: DINOv2, and mmdet's Faster R-CNN of 43.1 box AP. mmdet's RTMDet
# has 40.9.
_base_ = [
    'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    '../_base_/teachers/dinov2-base.py',
    '../_base_/methods/radio.py',
    '../_base_/distillation.py',
]

model = dict(
    _delete_=True,
    type='mmdiffkd.Distiller',
    student=_base_.model,
    teachers=dict(
        dino=_base_.teacher,
        det=dict(
            config='mmdet::faster_rcnn/faster-rcnn_x101-64x4d_fpn_ms-3x_coco.py',
            checkpoint='https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_x101_64x4d_fpn_mstrain_3x_coco/faster_rcnn_x101_64x4d_fpn_mstrain_3x_coco_20210524_124528-26c63de6.pth',
        ),
    ),
    distill=dict(
        tokens=dict(teacher='dino', teacher_at='backbone.ln1', **_base_.entry),
        fpn=dict(
            teacher='det',
            # Strides 8, 16 and 32 in both.
            student_at='neck[:]',
            teacher_at='neck[1:4]',
            neck=dict(type='ProjectionNeck'),
            # PKD's weight for one-stage students.
            loss=dict(type='PKDLoss', loss_weight=10.0),
        ),
    ),
    input_size=640,
)
# The rate is for 8 x 32 images; mmdet's recipe says 16 here.
auto_scale_lr = dict(base_batch_size=256)
optim_wrapper = _base_.distillation.optim_wrapper
default_hooks = _base_.distillation.default_hooks
