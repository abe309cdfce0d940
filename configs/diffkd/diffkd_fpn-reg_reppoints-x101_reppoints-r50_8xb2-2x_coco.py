# Teacher: mmdet's, 44.2 box AP; 44.2 in the paper.
_base_ = [
    'mmdet::reppoints/reppoints-moment_r50_fpn-gn_head-gn_2x_coco.py',
    '../_base_/distillation.py',
]

model = dict(
    _delete_=True,
    type='mmdiffkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmdet::reppoints/'
        'reppoints-moment_x101-dconv-c3-c5_fpn-gn_head-gn_2x_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/reppoints/reppoints_moment_x101_fpn_dconv_c3-c5_gn-neck%2Bhead_2x_coco/reppoints_moment_x101_fpn_dconv_c3-c5_gn-neck%2Bhead_2x_coco_20200329-f87da1ea.pth',
    ),
    distill=dict(
        fpn=dict(
            at='neck[:]',
            neck=dict(type='DiffKDNeck'),
            loss=dict(type='MSELoss', loss_weight=15.0),
        ),
        reg=dict(
            at=[
                'bbox_head.reppoints_pts_init_out',
                'bbox_head.reppoints_pts_refine_out',
            ],
            loss=dict(type='SmoothL1Loss'),
        ),
    ),
)
optim_wrapper = _base_.distillation.optim_wrapper
default_hooks = _base_.distillation.default_hooks
