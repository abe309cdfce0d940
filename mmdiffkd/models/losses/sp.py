"""Similarity-preserving distillation."""

from torch import Tensor
from torch.nn import functional as F

from mmdiffkd.registry import MODELS

from .base import DistillLoss
from .operands import inner_products, unit


@MODELS.register_module()
class SPLoss(DistillLoss):
    """Mean squared difference of the similarities of samples.

    The similarities are the inner products of all pairs of flattened
    features, (B, B), each row scaled to length 1. Student and teacher may
    differ in channels. They are a statistic over the batch of one process;
    a single sample gives 0.

    The comparisons take loss_weight = 3000 on CIFAR-100, at the last feature
    map.

    Args:
        loss_weight (float): Factor of the loss. Defaults to 1.0.

    Source: "Similarity-Preserving Knowledge Distillation" (ICCV 2019).
    """

    any_channels = True

    def distance(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Compare two batches of features.

        Args:
            preds_S (Tensor): The student's, (B, C) or (B, C, H, W).
            preds_T (Tensor): The teacher's, the same but for C.

        Returns:
            Tensor: A scalar, without ``loss_weight``.
        """
        return F.mse_loss(*map(_similarities, (preds_S, preds_T)))


def _similarities(feature: Tensor) -> Tensor:
    """Of all pairs of samples, (B, B), each row of length 1."""
    return unit(inner_products(feature.flatten(1)))
