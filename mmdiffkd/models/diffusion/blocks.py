"""Layers of the diffusion networks, for maps and for vectors.

A *map* has the shape (B, C, H, W), a *vector* (B, C). What is a 1x1
convolution on maps is a linear layer on vectors.
"""

from torch import Tensor, nn


def is_map(feature: str) -> bool:
    """Whether ``feature`` says 'map'; 'vector' is the only other word.

    Raises:
        ValueError: If it is neither.
    """
    if feature not in ('map', 'vector'):
        raise ValueError(
            f"feature={feature!r} must be 'map' for (B, C, H, W) or "
            "'vector' for (B, C)"
        )
    return feature == 'map'


def pointwise(in_channels: int, out_channels: int, feature: str) -> nn.Module:
    """Mix channels at each position: a 1x1 convolution or a linear layer."""
    if is_map(feature):
        return nn.Conv2d(in_channels, out_channels, 1)
    return nn.Linear(in_channels, out_channels)


def batch_norm(channels: int, feature: str, affine: bool = True) -> nn.Module:
    """Batch norm over maps or over vectors."""
    norm = nn.BatchNorm2d if is_map(feature) else nn.BatchNorm1d
    return norm(channels, affine=affine)


class Bottleneck(nn.Module):
    """The residual block of maps: 1x1, 3x3, 1x1, each with batch norm.

    Unlike ResNet's, its convolutions have biases and nothing follows the
    addition, so that the output, a noise or a latent, may be negative.

    Args:
        channels (int): C, of input and output.
        reduction (int): The width inside is ``max(1, C // reduction)``.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        width = max(1, channels // reduction)
        self.block = nn.Sequential(
            nn.Conv2d(channels, width, 1),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, channels, 1),
            nn.BatchNorm2d(channels),
        )

    def forward(self, feature: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        # Batch norm's backward pass does not need its result.
        return self.block(feature).add_(feature)


def mlp(channels: int, expansion: int) -> list[nn.Module]:
    """The block of vectors: two linear layers, ``expansion * C`` between."""
    width = channels * expansion
    return [
        nn.Linear(channels, width),
        nn.BatchNorm1d(width),
        nn.ReLU(inplace=True),
        nn.Linear(width, channels),
    ]
