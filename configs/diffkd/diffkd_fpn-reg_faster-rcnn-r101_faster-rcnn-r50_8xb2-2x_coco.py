# Teacher: mmdet's, 39.8 box AP; 39.8 in the paper.
_base_ = [
    'mmdet::faster_rcnn/faster-rcnn_r50_fpn_2x_coco.py',
    '../_base_/distillation.py',
]

model = dict(
    _delete_=True,
    type='mmdiffkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmdet::faster_rcnn/faster-rcnn_r101_fpn_2x_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_r101_fpn_2x_coco/faster_rcnn_r101_fpn_2x_coco_bbox_mAP-0.398_20200504_210455-1d2dac9c.pth',
    ),
    distill=dict(
        fpn=dict(
            at='neck[:]',
            neck=dict(type='DiffKDNeck'),
            loss=dict(type='MSELoss', loss_weight=5.0),
        ),
        reg=dict(
            at='roi_head.bbox_head.fc_reg',
            loss=dict(type='SmoothL1Loss'),
        ),
    ),
)
optim_wrapper = _base_.distillation.optim_wrapper
default_hooks = _base_.distillation.default_hooks
