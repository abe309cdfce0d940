"""Similarity-preserving distillation."""

from torch import Tensor, nn
from torch.nn import functional as F

from mmdiffkd.registry import MODELS

from .operands import comparable, inner_products, unit


@MODELS.register_module()
class SPLoss(nn.Module):
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

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Compare two batches of features.

        Args:
            preds_S (Tensor): The student's, (B, C) or (B, C, H, W).
            preds_T (Tensor): The teacher's, the same but for C.

        Returns:
            Tensor: A scalar, computed in float32 or better.

        Raises:
            ValueError: If shapes differ in more than C.
        """
        preds = comparable(preds_S, preds_T, any_channels=True)
        similarities = (unit(inner_products(x.flatten(1))) for x in preds)
        return self.loss_weight * F.mse_loss(*similarities)
