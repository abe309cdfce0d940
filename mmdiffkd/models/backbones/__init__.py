"""Small networks that the papers use and mmpretrain lacks."""

from importlib.util import find_spec

from .cifar_mobilenet_v2 import CIFARMobileNetV2
from .cifar_shufflenet_v1 import CIFARShuffleNetV1
from .cifar_vgg import CIFARVGG
from .cifar_wide_resnet import CIFARWideResNet
from .mobilenet_v1 import MobileNetV1

__all__ = [
    'CIFARMobileNetV2',
    'CIFARShuffleNetV1',
    'CIFARVGG',
    'CIFARWideResNet',
    'MobileNetV1',
]

# These are changed versions of mmpretrain's, without which mmdiffkd works too.
if find_spec('mmpretrain'):
    from .cifar_resnet import CIFARResNet
    from .cifar_shufflenet_v2 import CIFARShuffleNetV2

    __all__ += ['CIFARResNet', 'CIFARShuffleNetV2']
