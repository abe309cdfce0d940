"""Smooth L1 distance."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from mmdiffkd.registry import MODELS

from .base import DistillLoss


@MODELS.register_module()
class SmoothL1Loss(DistillLoss):
    """The mean over all elements of the smoothed absolute difference d.

    ``0.5 * d^2 / beta`` where d < beta, ``d - 0.5 * beta`` elsewhere.

    Teachers of different kinds give features of different scales. With
    ``normalize_teacher`` one ``beta``, and one weight, fits all of them.
    Feature Distillation does this with beta = 2 at the tokens of
    transformers, behind a 1x1 convolution (``ProjectionNeck``).

    Args:
        beta (float): Where the parabola ends, in units of the tensors; 0 is
            the plain absolute difference. Defaults to 1.0.
        loss_weight (float): Factor of the loss. Defaults to 1.0.
        normalize_teacher (bool): Whether each vector of the teacher, and
            each position of its map, is first brought to mean 0 and
            variance 1 over its channels: a layer norm without parameters.
            Defaults to False.

    Raises:
        ValueError: If beta is negative.

    Source: Girshick, "Fast R-CNN" (2015), section 2.3, where beta is 1;
    with ``normalize_teacher`` the released code of Wei et al., "Contrastive
    Learning Rivals Masked Image Modeling in Fine-tuning via Feature
    Distillation" (2022).
    """

    def __init__(
        self,
        beta: float = 1.0,
        loss_weight: float = 1.0,
        normalize_teacher: bool = False,
    ) -> None:
        super().__init__(loss_weight)
        if beta < 0:
            raise ValueError(f'beta={beta} must be at least 0')
        self.beta = beta
        self.normalize_teacher = normalize_teacher

    def check_shapes(
        self, student: Sequence[int], teacher: Sequence[int]
    ) -> None:
        """Refuse one channel to normalise over, beside different shapes.

        Args:
            student (Sequence[int]): The shape of the student's tensor.
            teacher (Sequence[int]): That of the teacher's.

        Raises:
            ValueError: If the two differ, or a layer norm would make 0 of
                whatever the teacher says.
        """
        super().check_shapes(student, teacher)
        if self.normalize_teacher and teacher[1] == 1:
            raise ValueError(
                'SmoothL1Loss(normalize_teacher=True) normalises over '
                f"channels, but the teacher's tensor of shape "
                f'{tuple(teacher)} has one, which would always become 0. '
                'Leave `normalize_teacher` out'
            )

    def distance(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Compare two tensors of one shape.

        Args:
            preds_S (Tensor): The student's, of any shape; (B, C) or
                (B, C, H, W) with ``normalize_teacher``.
            preds_T (Tensor): The teacher's, of the same shape.

        Returns:
            Tensor: A scalar, without ``loss_weight``.
        """
        if self.normalize_teacher:
            rows = preds_T.movedim(1, -1)
            rows = F.layer_norm(rows, rows.shape[-1:])
            preds_T = rows.movedim(-1, 1)
        return F.smooth_l1_loss(preds_S, preds_T, beta=self.beta)
