"""Distillation by Pearson's correlation coefficient."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mmdiffkd.registry import MODELS

from .base import DistillLoss
from .operands import divided


@MODELS.register_module()
class PKDLoss(DistillLoss):
    """Half the mean squared difference of standardised maps.

    Each channel is brought to mean 0 and standard deviation 1 over the batch
    of one process and all positions; the result is about 1 minus Pearson's
    correlation, averaged over channels. A channel whose standard deviation is
    1e-6 or less, as for one value alone, is centred only. Names and defaults
    are those of mmrazor's loss.

    mmrazor's configurations take loss_weight = 6 for two-stage detectors and
    10 for one-stage ones, at each of the first four FPN levels.

    Args:
        loss_weight (float): Factor of the loss. Defaults to 1.0.
        resize_stu (bool): Whether it is the student's map that is resized
            where the sizes differ. The distillation does that, before the
            loss; False is refused. Defaults to True.

    Raises:
        ValueError: If ``resize_stu`` is False.

    Source: Cao et al., "PKD: General Distillation Framework for Object
    Detectors via Pearson Correlation Coefficient" (2022).
    """

    feature = 'map'

    def __init__(
        self, loss_weight: float = 1.0, resize_stu: bool = True
    ) -> None:
        super().__init__(loss_weight)
        if not resize_stu:
            raise ValueError(
                "resize_stu=False would resize the teacher's map, but the "
                "distillation has resized the student's before the loss: "
                'leave it out'
            )

    def distance(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Compare two maps.

        Args:
            preds_S (Tensor): The student's, (B, C, H, W).
            preds_T (Tensor): The teacher's, of the same shape.

        Returns:
            Tensor: A scalar, without ``loss_weight``.
        """
        return F.mse_loss(*map(_standardised, (preds_S, preds_T))) / 2


def _standardised(x: Tensor) -> Tensor:
    values = x.numel() // x.shape[1]
    std, mean = torch.std_mean(
        x, (0, 2, 3), correction=min(1, values - 1), keepdim=True
    )
    return divided(x - mean, std, eps=1e-6)
