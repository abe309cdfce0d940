"""MobileNetV1."""

from collections.abc import Sequence

from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdiffkd.registry import MODELS


@MODELS.register_module()
class MobileNetV1(BaseModule):
    """MobileNetV1 backbone.

    A 3x3 stem of stride 2 and thirteen depthwise separable blocks (3x3
    depthwise, then 1x1, each with norm and ReLU), in five stages that end at
    strides 2, 4, 8, 16 and 32. With a linear layer for 1000 classes it has
    4,231,976 parameters.

    Source: `MobileNets <https://arxiv.org/abs/1704.04861>`_, Table 1, whose
    stride of 2 in the last block is taken as 1, as the sizes beside it say.

    Args:
        widen_factor (float): Multiplier of all channel counts.
            Defaults to 1.0.
        out_indices (Sequence[int]): Stages, 0 to 4, whose maps are returned.
            Defaults to (4, ).
        frozen_stages (int): Freezes the stem (0) or the stem and that many
            stages (1 to 5): their parameters get no gradient and their norms
            stay in eval mode. -1 freezes nothing. Defaults to -1.
        norm_eval (bool): Keeps all batch norms in eval mode during training.
            Defaults to False.
        conv_cfg (dict, optional): Config of the convolutions. Defaults to
            None, which means ``nn.Conv2d``.
        norm_cfg (dict, optional): Config of the norms. Defaults to None,
            which means ``dict(type='BN')``.
        act_cfg (dict, optional): Config of the activations. Defaults to
            None, which means ``dict(type='ReLU')``.
        init_cfg (dict or list, optional): Config of the initialisation.
            Defaults to None, which means Kaiming (normal, fan-out) for
            convolutions and 1 for norms.

    Raises:
        ValueError: If ``widen_factor``, ``out_indices`` or ``frozen_stages``
            is out of range.
    """

    # Channels, number of blocks and stride of the first block.
    arch_settings = (
        (64, 1, 1),
        (128, 2, 2),
        (256, 2, 2),
        (512, 6, 2),
        (1024, 2, 2),
    )

    def __init__(
        self,
        widen_factor: float = 1.0,
        out_indices: Sequence[int] = (4,),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        conv_cfg: dict | None = None,
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        init_cfg: dict | list | None = None,
    ):
        super().__init__(
            init_cfg
            or [
                dict(type='Kaiming', layer='Conv2d'),
                dict(
                    type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']
                ),
            ]
        )
        stages = len(self.arch_settings)
        if widen_factor <= 0:
            raise ValueError(
                f'widen_factor={widen_factor}: give a positive number.'
            )
        if not set(out_indices) <= set(range(stages)):
            raise ValueError(
                f'out_indices={tuple(out_indices)}: the stages are 0 to '
                f'{stages - 1}.'
            )
        if frozen_stages not in range(-1, stages + 1):
            raise ValueError(
                f'frozen_stages={frozen_stages}: give -1 (nothing), 0 (the '
                f'stem) or 1 to {stages}.'
            )
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval

        layer = dict(
            conv_cfg=conv_cfg,
            norm_cfg=norm_cfg or dict(type='BN'),
            act_cfg=act_cfg or dict(type='ReLU'),
        )
        channels = int(32 * widen_factor)
        self.conv1 = ConvModule(3, channels, 3, stride=2, padding=1, **layer)
        for i, (width, num_blocks, stride) in enumerate(self.arch_settings):
            blocks = []
            for block in range(num_blocks):
                out_channels = int(width * widen_factor)
                blocks.append(
                    DepthwiseSeparableConvModule(
                        channels,
                        out_channels,
                        3,
                        stride=stride if block == 0 else 1,
                        padding=1,
                        **layer,
                    )
                )
                channels = out_channels
            self.add_module(f'layer{i + 1}', nn.Sequential(*blocks))
        self._freeze_stages()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Returns the maps of the stages in ``out_indices``.

        Args:
            x (Tensor): Images of shape (B, 3, H, W).

        Returns:
            tuple[Tensor, ...]: Maps of shape (B, C, H / s, W / s), with s of
            2, 4, 8, 16 and 32 from stage 0 to 4.
        """
        x = self.conv1(x)
        outs = []
        for i in range(len(self.arch_settings)):
            x = getattr(self, f'layer{i + 1}')(x)
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)

    def _freeze_stages(self) -> None:
        frozen = ['conv1'] if self.frozen_stages >= 0 else []
        frozen += [f'layer{i + 1}' for i in range(self.frozen_stages)]
        for name in frozen:
            getattr(self, name).eval().requires_grad_(False)

    def train(self, mode: bool = True) -> 'MobileNetV1':
        """Sets the mode; frozen stages, and norms by request, stay in eval."""
        super().train(mode)
        if mode:
            self._freeze_stages()
            if self.norm_eval:
                for module in self.modules():
                    if isinstance(module, _BatchNorm):
                        module.eval()
        return self
