"""ShuffleNetV1 for CIFAR."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmdiffkd.registry import MODELS

from .stages import StagedBackbone


class ShuffleBlock(nn.Module):
    """1x1 convolution in groups, shuffle, 3x3 depthwise, 1x1 in groups.

    Each convolution is followed by a norm, the first two by a ReLU as well.
    With stride 1 the input is added; with stride 2 it is average-pooled and
    concatenated behind the convolutions' channels. A ReLU ends the block.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output.
        stride (int): 1 or 2.
        groups (int): Groups of the 1x1 convolutions.
        first_groups (int): Groups of the first of them, and of the shuffle.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        groups: int,
        first_groups: int,
    ) -> None:
        super().__init__()
        width = out_channels - in_channels if stride == 2 else out_channels
        hidden = width // 4
        self.layers = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(
                    in_channels, hidden, 1, groups=first_groups, bias=False
                ),
                bn1=nn.BatchNorm2d(hidden),
                relu1=nn.ReLU(),
                shuffle=nn.ChannelShuffle(first_groups),
                conv2=nn.Conv2d(
                    *(hidden, hidden, 3, stride),
                    padding=1,
                    groups=hidden,
                    bias=False,
                ),
                bn2=nn.BatchNorm2d(hidden),
                relu2=nn.ReLU(),
                conv3=nn.Conv2d(hidden, width, 1, groups=groups, bias=False),
                bn3=nn.BatchNorm2d(width),
            )
        )
        self.pool = nn.AvgPool2d(3, 2, padding=1) if stride == 2 else None
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, (B, C', H / stride, W / stride).

        Args:
            x (Tensor): Map of shape (B, C, H, W).
        """
        out = self.layers(x)
        if self.pool is None:
            return self.relu(out + x)
        return self.relu(torch.cat([out, self.pool(x)], dim=1))


@MODELS.register_module()
class CIFARShuffleNetV1(StagedBackbone):
    """ShuffleNetV1 for 32x32 images, with three groups.

    A 1x1 stem of 24 channels without stride, then three stages of 240, 480
    and 960 channels at strides 2, 4 and 8. With a linear layer for 100
    classes it has 949,258 parameters.

    Source: `ShuffleNet <https://arxiv.org/abs/1707.01083>`_, Table 1, g = 3,
    in the form that the distillation literature uses on CIFAR: the stem above
    in place of a 3x3 convolution and a pooling of stride 2, a ReLU behind the
    depthwise convolution too, and a bottleneck that is a quarter of what its
    block's convolutions put out.

    Args:
        out_indices (Sequence[int]): Stages, 0 to 2, whose maps are returned.
            Defaults to (2, ).
        init_cfg (dict or list, optional): Config of the initialisation.
            Defaults to None, which means PyTorch's.

    Raises:
        ValueError: If ``out_indices`` is out of range.
    """

    # Channels and number of blocks.
    arch_settings = ((240, 4), (480, 8), (960, 4))

    def __init__(
        self,
        out_indices: Sequence[int] = (2,),
        init_cfg: dict | list | None = None,
    ) -> None:
        groups = 3
        channels = 24
        stem = nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(3, channels, 1, bias=False),
                bn=nn.BatchNorm2d(channels),
                relu=nn.ReLU(),
            )
        )
        stages = {}
        for i, (width, number) in enumerate(self.arch_settings):
            blocks = []
            for block in range(number):
                blocks.append(
                    ShuffleBlock(
                        channels,
                        width,
                        2 if block == 0 else 1,
                        groups,
                        # So few channels are not worth dividing.
                        1 if channels == 24 else groups,
                    )
                )
                channels = width
            stages[f'layer{i + 1}'] = nn.Sequential(*blocks)
        super().__init__(stem, stages, out_indices, init_cfg)
