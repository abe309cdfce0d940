"""Alignment of directions."""

from torch import Tensor, nn

from mmdiffkd.registry import MODELS

from .operands import comparable, unit


@MODELS.register_module()
class DirectionAlignmentLoss(nn.Module):
    """1 minus the cosine between student and teacher, averaged over samples.

    Each position of a map is a sample. A vector without length, which a
    projector that ends in ReLU can give, has the cosine 0 with everything.

    PEFD's released code takes loss_weight = 25 on pooled features.

    Args:
        loss_weight (float): Factor of the loss. Defaults to 1.0.

    Source: Chen et al., "Improved Feature Distillation via Projector
    Ensemble" (2022), the modified direction alignment loss.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Compare two tensors of one shape.

        Args:
            preds_S (Tensor): The student's, (B, C) or (B, C, H, W).
            preds_T (Tensor): The teacher's, of the same shape.

        Returns:
            Tensor: A scalar, computed in float32 or better.

        Raises:
            ValueError: If the shapes differ.
        """
        preds = comparable(preds_S, preds_T)
        student, teacher = (unit(x) for x in preds)
        return self.loss_weight * (1 - (student * teacher).sum(1)).mean()
