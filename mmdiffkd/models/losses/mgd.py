"""The distance of masked generative distillation."""

from torch import Tensor
from torch.nn import functional as F

from mmdiffkd.registry import MODELS

from .base import DistillLoss


@MODELS.register_module()
class MGDLoss(DistillLoss):
    """The squared difference, summed, over the number of samples.

    What makes it masked and generative is ``MGDNeck``, which hides a part of
    the student's map and generates the whole of the teacher's. Names and
    default are those of mmrazor's loss; ``loss_weight`` is ours.

    Args:
        alpha_mgd (float): Weight, small because the sum is large; the
            released settings are 2e-5 for one-stage detectors and
            segmentation, 5e-7 for two-stage detectors, 7e-5 for
            classification. Defaults to 2e-5.
        loss_weight (float): Factor of the loss. Defaults to 1.0.

    Source: Yang et al., "Masked Generative Distillation" (2022), and its
    released code.
    """

    def __init__(
        self, alpha_mgd: float = 2e-5, loss_weight: float = 1.0
    ) -> None:
        super().__init__(loss_weight)
        self.alpha_mgd = alpha_mgd

    def distance(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Compare two tensors of one shape.

        Args:
            preds_S (Tensor): What was generated from the student,
                (B, C, H, W).
            preds_T (Tensor): The teacher's, of the same shape.

        Returns:
            Tensor: A scalar, without ``loss_weight``.
        """
        distance = F.mse_loss(preds_S, preds_T, reduction='sum')
        return self.alpha_mgd * distance / len(preds_T)
