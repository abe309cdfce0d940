"""ShuffleNetV2 for CIFAR."""

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from mmpretrain.models.backbones import ShuffleNetV2
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdiffkd.registry import MODELS


@MODELS.register_module()
class CIFARShuffleNetV2(ShuffleNetV2):
    """ShuffleNetV2 for 32x32 images.

    mmpretrain's ``ShuffleNetV2`` with a 1x1 stem without stride or pooling,
    so that its stages 0 to 2 end at strides 2, 4 and 8; stage 3 is a 1x1
    convolution to 1024 channels, whose output is pooled. With a linear layer
    for 100 classes it has 1,355,528 parameters.

    Source: `ShuffleNet V2 <https://arxiv.org/abs/1807.11164>`_, Table 5, in
    the form that the distillation literature uses on CIFAR.

    Args:
        **kwargs: Arguments of ``ShuffleNetV2``: ``widen_factor``,
            ``out_indices``, ``frozen_stages``, ``norm_cfg``, ``init_cfg``
            and others. An ``init_cfg`` of None means PyTorch's
            initialisation, not mmpretrain's.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.conv1 = ConvModule(
            3,
            self.conv1.out_channels,
            1,
            conv_cfg=self.conv_cfg,
            norm_cfg=self.norm_cfg,
            act_cfg=self.act_cfg,
        )
        self.maxpool = nn.Identity()

    def init_weights(self) -> None:
        """Initialise as PyTorch does, or as ``init_cfg`` says."""
        # Neither mmpretrain's initialisation nor that of mmcv's layers.
        if self.init_cfg:
            BaseModule.init_weights(self)
            return
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, _BatchNorm)):
                module.reset_parameters()
