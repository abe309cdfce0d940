"""Maps averaged over positions, and what a classifier reads off them."""

from torch import Tensor, nn

from ..diffusion.precision import at_least_float32


def average(feature: Tensor) -> Tensor:
    """Average maps (B, C, H, W) to (B, C); leave vectors as they are."""
    if feature.dim() == 2:
        return feature
    # Summed in half precision, a large map would overflow on the CPU.
    mean = at_least_float32(feature).mean(dim=(2, 3))
    return mean.to(feature.dtype)


def classify(feature: Tensor, head: nn.Module) -> Tensor:
    """What a classifier says of a feature, averaged where it is a map.

    Args:
        feature (Tensor): (B, C, H, W) or (B, C).
        head (nn.Module): Maps (B, C) to logits (B, classes).

    Returns:
        Tensor: The logits.
    """
    pooled = average(feature)
    weight = next(head.parameters(), pooled)
    return head(pooled.to(weight.dtype))
