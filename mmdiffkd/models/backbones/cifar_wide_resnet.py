"""Wide residual networks for CIFAR."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from mmdiffkd.registry import MODELS

from .stages import KAIMING, StagedBackbone


class PreActivationBlock(nn.Module):
    """Norm, ReLU and 3x3 convolution, twice, added to a shortcut.

    Where the width changes, the shortcut is a 1x1 convolution of what comes
    out of the first ReLU; elsewhere it is the block's input.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output.
        stride (int): Stride of the first convolution.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(
            in_channels, out_channels, 3, stride, padding=1, bias=False
        )
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(
            out_channels, out_channels, 3, padding=1, bias=False
        )
        self.shortcut = None
        if in_channels != out_channels:
            self.shortcut = nn.Conv2d(
                in_channels, out_channels, 1, stride, bias=False
            )

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, (B, C', H / stride, W / stride).

        Args:
            x (Tensor): Map of shape (B, C, H, W).
        """
        out = self.relu1(self.bn1(x))
        if self.shortcut is not None:
            x = self.shortcut(out)
        out = self.conv2(self.relu2(self.bn2(self.conv1(out))))
        return x + out


@MODELS.register_module()
class CIFARWideResNet(StagedBackbone):
    """Wide ResNet, WRN-d-k.

    A 3x3 stem of 16 channels and three stages of (d - 4) / 6 pre-activation
    blocks each, with 16 k, 32 k and 64 k channels at strides 1, 2 and 4. The
    stages' maps come before any norm; stage 3, ``last``, is the final norm
    and ReLU, whose output is pooled. The pre-activation of a stage is what
    the norm after it returns: ``backbone.layer2.0.bn1`` for the first stage,
    ``backbone.last.bn`` for the third. With a linear layer for 100 classes
    WRN-40-2 has 2,255,156 parameters.

    Source: `Wide Residual Networks <https://arxiv.org/abs/1605.07146>`_,
    Table 1, without dropout.

    Args:
        depth (int): d, 6n + 4 for a whole n: 16, 40 and so on.
        widen_factor (int): k. Defaults to 1.
        out_indices (Sequence[int]): Stages, 0 to 3, whose maps are returned.
            Defaults to (3, ).
        init_cfg (dict or list, optional): Config of the initialisation.
            Defaults to None, which means Kaiming (normal, fan-out) for
            convolutions and 1 for norms.

    Raises:
        ValueError: If ``depth``, ``widen_factor`` or ``out_indices`` is out
            of range.
    """

    def __init__(
        self,
        depth: int,
        widen_factor: int = 1,
        out_indices: Sequence[int] = (3,),
        init_cfg: dict | list | None = None,
    ) -> None:
        num_blocks, rest = divmod(depth - 4, 6)
        if num_blocks < 1 or rest:
            raise ValueError(
                f'depth={depth}: give 6n + 4 with n of 1 or more, for '
                'instance 16, 28 or 40.'
            )
        if widen_factor < 1:
            raise ValueError(
                f'widen_factor={widen_factor}: give a whole number of 1 or '
                'more.'
            )
        channels = 16
        stages = {}
        for i, stride in enumerate((1, 2, 2)):
            blocks = []
            for block in range(num_blocks):
                width = 16 * 2**i * widen_factor
                blocks.append(
                    PreActivationBlock(
                        channels, width, stride if block == 0 else 1
                    )
                )
                channels = width
            stages[f'layer{i + 1}'] = nn.Sequential(*blocks)
        stages['last'] = nn.Sequential(
            OrderedDict(bn=nn.BatchNorm2d(channels), relu=nn.ReLU())
        )
        super().__init__(
            nn.Conv2d(3, 16, 3, padding=1, bias=False),
            stages,
            out_indices,
            init_cfg or list(KAIMING),
        )
