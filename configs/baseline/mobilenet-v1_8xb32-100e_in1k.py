_base_ = [
    '../_base_/models/mobilenet_v1.py',
    '../_base_/datasets/imagenet_crop-flip.py',
    '../_base_/schedules/imagenet_sgd-100e.py',
    '../_base_/default_runtime.py',
]
