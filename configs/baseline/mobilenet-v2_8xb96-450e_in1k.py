_base_ = [
    'mmpretrain::_base_/models/mobilenet_v2_1x.py',
    '../_base_/datasets/imagenet_randaugment.py',
    '../_base_/schedules/imagenet_rmsprop-450e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    head=dict(loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1))
)
