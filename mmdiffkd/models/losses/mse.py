"""Mean squared error."""

from torch import Tensor
from torch.nn import functional as F

from mmdiffkd.registry import MODELS

from .base import DistillLoss


@MODELS.register_module()
class MSELoss(DistillLoss):
    """The mean over all elements of the squared difference.

    Args:
        loss_weight (float): Factor of the loss; lambda 3 of DiffKD's
            Eq. (9). Defaults to 1.0.

    Source: Romero et al., "FitNets: Hints for Thin Deep Nets" (2015),
    Eq. (3); DiffKD, Eq. (7), with d for features.
    """

    def distance(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Compare two tensors of one shape.

        Args:
            preds_S (Tensor): The student's, of any shape.
            preds_T (Tensor): The teacher's, of the same shape.

        Returns:
            Tensor: A scalar, without ``loss_weight``.
        """
        return F.mse_loss(preds_S, preds_T)
