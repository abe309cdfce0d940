"""Variational information distillation."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdiffkd.registry import MODELS

from .base import DistillLoss
from .operands import check_tensor_channels


@MODELS.register_module()
class VIDLoss(DistillLoss):
    """Negative log-likelihood of the teacher's feature, given the student's.

    ``mean((mean - teacher)^2 / variance + log(variance)) / 2``: each channel
    is a Gaussian, whose mean ``VIDNeck`` predicts from the student and whose
    variance, ``softplus(a) + eps``, is trained here, one a channel. A
    variance that stays where it began makes this an MSE.

    A likelihood has no zero: for equal tensors the loss is half the mean of
    log(variance), 0.80 in the beginning, and it falls below 0 once the
    variances do below 1.

    Args:
        teacher_channels (int): C of the teacher's tensor; a distiller fills
            it in.
        init_pred_var (float): Variance of every channel in the beginning.
            Defaults to 5.0.
        eps (float): Variances stay above this. Defaults to 1e-5.
        loss_weight (float): Factor of the loss. Defaults to 1.0.

    Raises:
        ValueError: If ``init_pred_var`` does not exceed ``eps``, or that is
            not positive.

    Source: Ahn et al., "Variational Information Distillation for Knowledge
    Transfer" (2019); the constants are those of Tian et al.'s code for
    "Contrastive Representation Distillation" (2020).
    """

    def __init__(
        self,
        teacher_channels: int,
        init_pred_var: float = 5.0,
        eps: float = 1e-5,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(loss_weight)
        if eps <= 0:
            raise ValueError(f'eps={eps} must be above 0')
        if init_pred_var <= eps:
            raise ValueError(
                f'init_pred_var={init_pred_var} must be above eps={eps}'
            )
        self.eps = eps
        # Softplus, inverted.
        start = math.log(math.expm1(init_pred_var - eps))
        self.raw_variance = nn.Parameter(
            torch.full((teacher_channels,), start)
        )

    @property
    def variance(self) -> Tensor:
        """The variance of each channel, (C,)."""
        return F.softplus(self.raw_variance) + self.eps

    def distance(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Rate the predicted mean.

        Args:
            preds_S (Tensor): The mean, predicted from the student's tensor,
                (B, C) or (B, C, H, W).
            preds_T (Tensor): The teacher's, of the same shape.

        Returns:
            Tensor: A scalar, without ``loss_weight``.

        Raises:
            ValueError: If the shapes differ, or have other channels.
        """
        check_tensor_channels(preds_T, teacher_channels=len(self.raw_variance))
        variance = self.variance.to(preds_T.dtype)
        variance = variance.reshape(-1, *[1] * (preds_T.dim() - 2))
        error = (preds_S - preds_T).square() / variance
        return 0.5 * (error + variance.log()).mean()
