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

    Raises:
        ValueError: If the head returns something else, as one does that
            takes a list of features and picks the last.
    """
    pooled = average(feature)
    weight = next(head.parameters(), pooled)
    logits = head(pooled.to(weight.dtype))
    rows = isinstance(logits, Tensor) and logits.dim() == 2
    if not rows or len(logits) != len(pooled):
        raise ValueError(
            f'`teacher_head` is a {type(head).__name__}, which does not turn '
            f'vectors {tuple(pooled.shape)} into logits for each. Name the '
            "layer that does, for instance teacher_head='head.fc'."
        )
    return logits
