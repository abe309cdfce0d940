"""Channel-wise distillation."""

from torch import Tensor
from torch.nn import functional as F

from mmdiffkd.registry import MODELS

from .base import DistillLoss


@MODELS.register_module()
class ChannelWiseDivergence(DistillLoss):
    """``tau^2 * KL(teacher || student)`` over positions.

    Each channel of each sample, softened by tau and passed through a softmax
    over its positions, is one distribution; the mean is over all of these.
    It says nothing on maps of 1 x 1. Names and defaults are those of
    mmrazor's loss.

    For segmentation, mmrazor's configs compare logits with tau = 1 and
    loss_weight = 5; for detection, FPN levels with tau = 1 and
    loss_weight = 10 each.

    Args:
        tau (float): Temperature. Defaults to 1.0.
        loss_weight (float): Factor of the loss. Defaults to 1.0.

    Raises:
        ValueError: If tau is not positive.

    Source: Shu et al., "Channel-wise Knowledge Distillation for Dense
    Prediction" (2021).
    """

    feature = 'map'

    def __init__(self, tau: float = 1.0, loss_weight: float = 1.0) -> None:
        super().__init__(loss_weight)
        if tau <= 0:
            raise ValueError(f'tau={tau} must be above 0')
        self.tau = tau

    def distance(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Compare two maps.

        Args:
            preds_S (Tensor): The student's, (B, C, H, W).
            preds_T (Tensor): The teacher's, of the same shape.

        Returns:
            Tensor: A scalar, without ``loss_weight``.
        """
        student, teacher = (
            F.log_softmax(x.flatten(0, 1).flatten(1) / self.tau, dim=1)
            for x in (preds_S, preds_T)
        )
        loss = F.kl_div(
            student, teacher, reduction='batchmean', log_target=True
        )
        return self.tau**2 * loss
