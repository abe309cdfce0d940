# Teacher: mmdet's, 45.6 box AP; 45.6 in the paper.
_base_ = './diffkd_fpn-reg_faster-rcnn-r101_faster-rcnn-r50_8xb2-2x_coco.py'

model = dict(
    teacher=dict(
        config='mmdet::cascade_rcnn/'
        'cascade-mask-rcnn_x101-64x4d_fpn_20e_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/cascade_rcnn/cascade_mask_rcnn_x101_64x4d_fpn_20e_coco/cascade_mask_rcnn_x101_64x4d_fpn_20e_coco_20200512_161033-bdb5126a.pth',
    ),
    distill=dict(
        reg=dict(
            _delete_=True,
            # The teacher's first stage has one box for all classes, which on
            # positives is compared with the student's of the true class.
            student_at='roi_head.bbox_head.fc_reg',
            teacher_at='roi_head.bbox_head.0.fc_reg',
            neck=dict(type='ClassColumnsNeck'),
            loss=dict(type='SmoothL1Loss'),
        )
    ),
)
