# f1 to f4, which are all stages of VGGs, MobileNetV2 and ResNet-50.
_base_ = './vid_three-stages_cifar100.py'

distill = dict(stages=dict(at='backbone[0:4]'))
