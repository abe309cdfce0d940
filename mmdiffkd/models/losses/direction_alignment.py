"""Alignment of directions."""

from torch import Tensor

from mmdiffkd.registry import MODELS

from .base import DistillLoss
from .operands import unit


@MODELS.register_module()
class DirectionAlignmentLoss(DistillLoss):
    """1 minus the cosine between student and teacher, averaged over samples.

    Each position of a map, a token of a transformer, is a sample. A vector
    without length, which a projector that ends in ReLU can give, has the
    cosine 0 with everything.

    PEFD's released code takes loss_weight = 25 on pooled features. AM-RADIO
    takes 1 for class tokens, and :class:`RADIOLoss` for maps.

    Args:
        loss_weight (float): Factor of the loss. Defaults to 1.0.

    Source: Chen et al., "Improved Feature Distillation via Projector
    Ensemble" (2022), the modified direction alignment loss.
    """

    def distance(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Compare two tensors of one shape.

        Args:
            preds_S (Tensor): The student's, (B, C) or (B, C, H, W).
            preds_T (Tensor): The teacher's, of the same shape.

        Returns:
            Tensor: A scalar, without ``loss_weight``.
        """
        cosine = (unit(preds_S) * unit(preds_T)).sum(1)
        return (1 - cosine).mean()
