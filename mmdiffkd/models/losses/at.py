"""Attention transfer."""

from torch import Tensor
from torch.nn import functional as F

from mmdiffkd.registry import MODELS

from .base import DistillLoss
from .operands import unit


@MODELS.register_module()
class ATLoss(DistillLoss):
    """Mean squared difference of the two attention maps.

    A sample's attention map is the mean over channels of the squared
    feature, scaled to length 1 over its positions. Student and teacher may
    differ in channels. The mean is over samples and positions, so that a
    larger map counts less. Names and defaults are those of mmrazor's loss.

    On CIFAR-100 the comparisons take loss_weight = 1000 at each of the
    stages after the first, summed.

    Args:
        loss_weight (float): Factor of the loss. Defaults to 1.0.

    Source: Zagoruyko and Komodakis, "Paying More Attention to Attention"
    (2017), with p = 2, as in its released code.
    """

    any_channels = True
    feature = 'map'

    def distance(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Compare two maps.

        Args:
            preds_S (Tensor): The student's, (B, C, H, W).
            preds_T (Tensor): The teacher's, the same but for C.

        Returns:
            Tensor: A scalar, without ``loss_weight``.
        """
        return F.mse_loss(*map(_attention, (preds_S, preds_T)))


def _attention(feature: Tensor) -> Tensor:
    """The attention map, (B, H * W), of length 1."""
    return unit(feature.square().mean(1).flatten(1))
