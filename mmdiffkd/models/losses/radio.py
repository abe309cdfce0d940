"""AM-RADIO's loss: direction first, length beside it."""

from torch import Tensor

from mmdiffkd.registry import MODELS

from .base import DistillLoss
from .direction_alignment import DirectionAlignmentLoss
from .smooth_l1 import SmoothL1Loss


@MODELS.register_module()
class RADIOLoss(DistillLoss):
    """``cosine_weight * (1 - cosine) + smooth_l1_weight * smooth L1``.

    The terms are those of :class:`DirectionAlignmentLoss` and of
    :class:`SmoothL1Loss` with beta 1, of the same two tensors. The cosine
    aligns directions, smooth L1 the lengths, too. Two entries with a term
    each would do the same where there is no neck; with one, each would train
    a projection of its own.

    The paper compares maps in this way. For the class token it takes the
    cosine alone: ``smooth_l1_weight=0``, or :class:`DirectionAlignmentLoss`.

    Args:
        cosine_weight (float): Alpha of Eq. (3). Defaults to 0.9.
        smooth_l1_weight (float): Beta of Eq. (3). Defaults to 0.1.
        loss_weight (float): Factor of the loss. Defaults to 1.0.

    Source: Ranzinger et al., "AM-RADIO: Agglomerative Vision Foundation
    Model" (2024), Eq. (3). The paper does not say where its smooth L1 bends;
    1 is PyTorch's default.
    """

    def __init__(
        self,
        cosine_weight: float = 0.9,
        smooth_l1_weight: float = 0.1,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(loss_weight)
        self.cosine = DirectionAlignmentLoss(cosine_weight)
        self.smooth_l1 = SmoothL1Loss(loss_weight=smooth_l1_weight)

    def distance(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Compare two tensors of one shape.

        Args:
            preds_S (Tensor): The student's, (B, C) or (B, C, H, W).
            preds_T (Tensor): The teacher's, of the same shape.

        Returns:
            Tensor: A scalar, without ``loss_weight``.
        """
        return self.cosine(preds_S, preds_T) + self.smooth_l1(preds_S, preds_T)
