# Teacher: mmdet's, 40.8 box AP; 40.8 in the paper.
_base_ = [
    'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_ms-640-800-2x_coco.py',
    '../_base_/distillation.py',
]

model = dict(
    _delete_=True,
    type='mmdiffkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmdet::fcos/fcos_r101-caffe_fpn_gn-head_ms-640-800-2x_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/fcos/fcos_r101_caffe_fpn_gn-head_mstrain_640-800_2x_coco/fcos_r101_caffe_fpn_gn-head_mstrain_640-800_2x_coco-511424d6.pth',
    ),
    distill=dict(
        fpn=dict(
            at='neck[:]',
            neck=dict(type='DiffKDNeck'),
            loss=dict(type='MSELoss', loss_weight=5.0),
        ),
        reg=dict(
            # Behind each level's own scale: the numbers that become distances.
            at=[f'bbox_head.scales.{i}' for i in range(5)],
            loss=dict(type='SmoothL1Loss'),
        ),
    ),
)
optim_wrapper = _base_.distillation.optim_wrapper
default_hooks = _base_.distillation.default_hooks
