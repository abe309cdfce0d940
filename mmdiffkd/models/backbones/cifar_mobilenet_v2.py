"""MobileNetV2 for CIFAR."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from mmdiffkd.registry import MODELS

from .stages import KAIMING, StagedBackbone


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 projection.

    Each is followed by a norm, the first two by a ReLU as well; the input is
    added where shape and channels stay.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output.
        expansion (int): How many times wider the depthwise convolution is.
        stride (int): Its stride.
    """

    def __init__(
        self, in_channels: int, out_channels: int, expansion: int, stride: int
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.adds_input = stride == 1 and in_channels == out_channels
        self.layers = nn.Sequential(
            OrderedDict(
                expand=nn.Conv2d(in_channels, hidden, 1, bias=False),
                bn1=nn.BatchNorm2d(hidden),
                relu1=nn.ReLU(),
                depthwise=nn.Conv2d(
                    *(hidden, hidden, 3, stride),
                    padding=1,
                    groups=hidden,
                    bias=False,
                ),
                bn2=nn.BatchNorm2d(hidden),
                relu2=nn.ReLU(),
                project=nn.Conv2d(hidden, out_channels, 1, bias=False),
                bn3=nn.BatchNorm2d(out_channels),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, (B, C', H / stride, W / stride).

        Args:
            x (Tensor): Map of shape (B, C, H, W).
        """
        out = self.layers(x)
        return x + out if self.adds_input else out


@MODELS.register_module()
class CIFARMobileNetV2(StagedBackbone):
    """MobileNetV2 for 32x32 images, at half width by default.

    A 3x3 stem of stride 2, then four stages that end at strides 2, 4, 8 and
    16, and stage 4, ``last``, a 1x1 convolution to 1280 channels with norm
    and ReLU, whose output is pooled. With a linear layer for 100 classes the
    half-width network has 812,836 parameters.

    Source: `MobileNetV2 <https://arxiv.org/abs/1801.04381>`_, Table 2, in
    the form that the distillation literature uses on CIFAR: the second group
    of blocks has stride 1, every block has the 1x1 expansion, activations
    are ReLU, and widths are cut to whole numbers, not rounded to multiples
    of 8.

    Args:
        widen_factor (float): Multiplier of all channel counts but the last
            1280. Defaults to 0.5.
        out_indices (Sequence[int]): Stages, 0 to 4, whose maps are returned.
            Defaults to (4, ).
        init_cfg (dict or list, optional): Config of the initialisation.
            Defaults to None, which means Kaiming (normal, fan-out) for
            convolutions and 1 for norms.

    Raises:
        ValueError: If ``widen_factor`` or ``out_indices`` is out of range.
    """

    # A stage's groups of blocks: expansion, channels, number, stride.
    arch_settings = (
        ((1, 16, 1, 1), (6, 24, 2, 1)),
        ((6, 32, 3, 2),),
        ((6, 64, 4, 2), (6, 96, 3, 1)),
        ((6, 160, 3, 2), (6, 320, 1, 1)),
    )

    def __init__(
        self,
        widen_factor: float = 0.5,
        out_indices: Sequence[int] = (4,),
        init_cfg: dict | list | None = None,
    ) -> None:
        channels = int(32 * widen_factor)
        if int(16 * widen_factor) < 1:
            raise ValueError(
                f'widen_factor={widen_factor}: give 1 / 16 or more, so that '
                'every layer has a channel.'
            )
        stem = _conv_norm_relu(3, channels, 3, stride=2, padding=1)
        stages = {}
        for i, groups in enumerate(self.arch_settings):
            blocks = []
            for expansion, width, number, stride in groups:
                for block in range(number):
                    out_channels = int(width * widen_factor)
                    blocks.append(
                        InvertedResidual(
                            channels,
                            out_channels,
                            expansion,
                            stride if block == 0 else 1,
                        )
                    )
                    channels = out_channels
            stages[f'layer{i + 1}'] = nn.Sequential(*blocks)
        stages['last'] = _conv_norm_relu(channels, 1280, 1)
        super().__init__(stem, stages, out_indices, init_cfg or list(KAIMING))


def _conv_norm_relu(
    in_channels: int, out_channels: int, kernel_size: int, **arguments
) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(
                in_channels, out_channels, kernel_size, bias=False, **arguments
            ),
            bn=nn.BatchNorm2d(out_channels),
            relu=nn.ReLU(),
        )
    )
