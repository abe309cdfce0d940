"""VGG networks for CIFAR."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from mmdiffkd.registry import MODELS

from .stages import KAIMING, StagedBackbone


@MODELS.register_module()
class CIFARVGG(StagedBackbone):
    """VGG with batch norm, for 32x32 images.

    Five stages of 3x3 convolutions with bias, batch norm and ReLU, of 64,
    128, 256, 512 and 512 channels. A pooling of stride 2 stands before
    stages 1, 2 and 3, so that the last two stages have stride 8. With a
    linear layer for 100 classes VGG-8 has 3,965,028 parameters.

    Source: `VGG <https://arxiv.org/abs/1409.1556>`_, Table 1, in the form
    that the distillation literature uses on CIFAR: no fully connected layers
    but the classifier, no pooling behind stage 3, and a VGG-8.

    Args:
        depth (int): 8, 11, 13, 16 or 19.
        out_indices (Sequence[int]): Stages, 0 to 4, whose maps are returned.
            Defaults to (4, ).
        init_cfg (dict or list, optional): Config of the initialisation.
            Defaults to None, which means Kaiming (normal, fan-out) and
            biases of 0 for convolutions, and 1 for norms.

    Raises:
        ValueError: If ``depth`` or ``out_indices`` is out of range.
    """

    # Convolutions a stage.
    arch_settings = {
        8: (1, 1, 1, 1, 1),
        11: (1, 1, 2, 2, 2),
        13: (2, 2, 2, 2, 2),
        16: (2, 2, 3, 3, 3),
        19: (2, 2, 4, 4, 4),
    }

    def __init__(
        self,
        depth: int,
        out_indices: Sequence[int] = (4,),
        init_cfg: dict | list | None = None,
    ) -> None:
        if depth not in self.arch_settings:
            raise ValueError(
                f'depth={depth}: give one of {tuple(self.arch_settings)}.'
            )
        channels = 3
        stages = {}
        for i, number in enumerate(self.arch_settings[depth]):
            width = min(64 * 2**i, 512)
            layers = OrderedDict()
            if 1 <= i <= 3:
                layers['pool'] = nn.MaxPool2d(2)
            for j in range(1, number + 1):
                layers[f'conv{j}'] = nn.Conv2d(channels, width, 3, padding=1)
                layers[f'bn{j}'] = nn.BatchNorm2d(width)
                layers[f'relu{j}'] = nn.ReLU()
                channels = width
            stages[f'layer{i}'] = nn.Sequential(layers)
        super().__init__(
            nn.Identity(), stages, out_indices, init_cfg or list(KAIMING)
        )
