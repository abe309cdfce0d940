"""Hierarchical context loss."""

from torch import Tensor
from torch.nn import functional as F

from mmdiffkd.registry import MODELS

from .base import DistillLoss


@MODELS.register_module()
class HCLLoss(DistillLoss):
    """Mean squared error of maps at several sizes.

    Of the maps as they are, with weight 1, and of what average pooling to
    4 x 4, 2 x 2 and 1 x 1 makes of them, those smaller than the map, with
    weights 1/2, 1/4, 1/8 in turn; the sum is divided by that of the weights.
    A vector is a map of 1 x 1.

    On CUDA, PyTorch has no deterministic gradient of that pooling: under
    ``randomness=dict(deterministic=True)`` the backward pass is an error,
    without it two runs may differ in the last bits.

    ReviewKD, to which it belongs, sums it over levels with loss_weights from
    0.6 to 8 by pair on CIFAR-100, warmed up over 20 epochs (the entry's
    ``schedule``), and takes 1 (ResNet-34 to 18) and 8 (ResNet-50 to
    MobileNetV1) on ImageNet.

    Args:
        loss_weight (float): Factor of the loss. Defaults to 1.0.

    Source: Chen et al., "Distilling Knowledge via Knowledge Review" (2021),
    the hierarchical context loss, in its released code's form.
    """

    def distance(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Compare two maps, or two vectors.

        Args:
            preds_S (Tensor): The student's, (B, C, H, W) or (B, C).
            preds_T (Tensor): The teacher's, of the same shape.

        Returns:
            Tensor: A scalar, without ``loss_weight``.
        """
        difference = preds_S - preds_T
        side = min(difference.shape[2:], default=1)
        loss, weight, total = difference.square().mean(), 1.0, 1.0
        for size in (4, 2, 1):
            if size < side:
                weight /= 2
                # Pooling is linear: once for both.
                pooled = F.adaptive_avg_pool2d(difference, size)
                loss = loss + weight * pooled.square().mean()
                total += weight
        return loss / total
