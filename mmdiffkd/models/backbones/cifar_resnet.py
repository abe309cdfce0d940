"""Residual networks for CIFAR."""

from collections.abc import Sequence

from mmpretrain.models.backbones import ResNet_CIFAR
from mmpretrain.models.backbones.resnet import BasicBlock

from mmdiffkd.registry import MODELS


@MODELS.register_module()
class CIFARResNet(ResNet_CIFAR):
    """ResNet of three stages, 6n + 2 layers deep.

    mmpretrain's ``ResNet_CIFAR`` with the depths of the CIFAR literature. A
    3x3 stem, then three stages of n basic blocks at strides 1, 2 and 4. With
    a linear layer for 100 classes ResNet-20 has 278,324 parameters.

    What the distillation literature calls "x4" has a stem of 32 channels and
    a first stage of 64: ``stem_channels=32, base_channels=64``.

    Source: `Deep Residual Learning <https://arxiv.org/abs/1512.03385>`_,
    Sec. 4.2, with 1x1 convolutions as shortcuts where the width changes.

    Args:
        depth (int): 8, 14, 20, 32, 44, 56 or 110.
        stem_channels (int): Channels of the stem. Defaults to 16.
        base_channels (int): Channels of the first stage; the others have two
            and four times as many. Defaults to 16.
        out_indices (Sequence[int]): Stages, 0 to 2, whose maps are returned.
            Defaults to (2, ).
        zero_init_residual (bool): Initialises the last norm of each block
            to 0, as mmpretrain does by default and the CIFAR literature does
            not. Defaults to False.
        **kwargs: Further arguments of ``ResNet_CIFAR``: ``frozen_stages``,
            ``norm_eval``, ``norm_cfg``, ``init_cfg`` and others.
    """

    arch_settings = {
        6 * n + 2: (BasicBlock, (n, n, n)) for n in (1, 2, 3, 5, 7, 9, 18)
    }

    def __init__(
        self,
        depth: int,
        stem_channels: int = 16,
        base_channels: int = 16,
        out_indices: Sequence[int] = (2,),
        zero_init_residual: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(
            depth,
            stem_channels=stem_channels,
            base_channels=base_channels,
            num_stages=3,
            strides=(1, 2, 2),
            dilations=(1, 1, 1),
            out_indices=out_indices,
            zero_init_residual=zero_init_residual,
            **kwargs,
        )
