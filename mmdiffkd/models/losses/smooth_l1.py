"""Smooth L1 distance."""

from torch import Tensor
from torch.nn import functional as F

from mmdiffkd.registry import MODELS

from .base import DistillLoss


@MODELS.register_module()
class SmoothL1Loss(DistillLoss):
    """The mean over all elements of the smoothed absolute difference d.

    ``0.5 * d^2 / beta`` where d < beta, ``d - 0.5 * beta`` elsewhere.

    Args:
        beta (float): Where the parabola ends, in units of the tensors; 0 is
            the plain absolute difference. Defaults to 1.0.
        loss_weight (float): Factor of the loss. Defaults to 1.0.

    Raises:
        ValueError: If beta is negative.

    Source: Girshick, "Fast R-CNN" (2015), section 2.3, where beta is 1.
    """

    def __init__(self, beta: float = 1.0, loss_weight: float = 1.0) -> None:
        super().__init__(loss_weight)
        if beta < 0:
            raise ValueError(f'beta={beta} must be at least 0')
        self.beta = beta

    def distance(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Compare two tensors of one shape.

        Args:
            preds_S (Tensor): The student's, of any shape.
            preds_T (Tensor): The teacher's, of the same shape.

        Returns:
            Tensor: A scalar, without ``loss_weight``.
        """
        return F.smooth_l1_loss(preds_S, preds_T, beta=self.beta)
