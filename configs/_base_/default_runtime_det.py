# What all detection runs share.
_base_ = './default_runtime.py'

default_scope = 'mmdet'
default_hooks = dict(
    logger=dict(interval=50, ignore_last=False),
    visualization=dict(_delete_=True, type='DetVisualizationHook'),
)
visualizer = dict(type='DetLocalVisualizer', name='visualizer')
