"""Correlation of predictions, between classes and within them."""

import torch
from torch import Tensor

from mmdiffkd.registry import MODELS

from .base import DistillLoss


@MODELS.register_module()
class DISTLoss(DistillLoss):
    """``tau^2 * (inter_loss_weight * inter + intra_loss_weight * intra)``.

    Of the softened probabilities, a table of samples times classes, inter is
    1 minus Pearson's correlation of a student's and a teacher's row, averaged
    over samples; intra is the same of columns, averaged over classes. The
    pixels of a map are rows, too. Names and defaults are those of mmrazor's
    loss.

    intra is a statistic over the batch of one process: it depends on the
    batch size, and is a constant for a single row. Rows and columns without
    any spread (equal logits, say) correlate with nothing: they count 1, and
    no gradient flows through them. Since 1e-8 is added to the denominator, as
    in the released code, columns of tiny probabilities count nearly 1 even
    where student and teacher agree.

    The released code takes loss_weight = 2, and tau = 4 on CIFAR-100 and 1
    on ImageNet; for segmentation loss_weight = 1 and tau = 1.

    Args:
        inter_loss_weight (float): Weight of inter. Defaults to 1.0.
        intra_loss_weight (float): Weight of intra. Defaults to 1.0.
        tau (float): Temperature. Defaults to 1.0.
        loss_weight (float): Factor of the loss. Defaults to 1.0.
        teacher_detach (bool): Whether to keep gradients from the teacher's
            logits. Defaults to True.

    Raises:
        ValueError: If tau is not positive.

    Source: Huang et al., "Knowledge Distillation from A Stronger Teacher"
    (2022), and its released code.
    """

    over_classes = True
    activation = 'softmax'

    def __init__(
        self,
        inter_loss_weight: float = 1.0,
        intra_loss_weight: float = 1.0,
        tau: float = 1.0,
        loss_weight: float = 1.0,
        teacher_detach: bool = True,
    ) -> None:
        super().__init__(loss_weight)
        if tau <= 0:
            raise ValueError(f'tau={tau} must be above 0')
        self.inter_loss_weight = inter_loss_weight
        self.intra_loss_weight = intra_loss_weight
        self.tau = tau
        self.teacher_detach = teacher_detach

    def distance(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Compare two tensors of logits.

        Args:
            preds_S (Tensor): The student's, (B, C) or (B, C, H, W).
            preds_T (Tensor): The teacher's, of the same shape.

        Returns:
            Tensor: A scalar, without ``loss_weight``.
        """
        if self.teacher_detach:
            preds_T = preds_T.detach()
        student, teacher = (
            (x / self.tau).softmax(dim=1).movedim(1, -1).flatten(0, -2)
            for x in (preds_S, preds_T)
        )
        inter = 1 - _correlation(student, teacher, dim=1).mean()
        intra = 1 - _correlation(student, teacher, dim=0).mean()
        loss = self.inter_loss_weight * inter + self.intra_loss_weight * intra
        return self.tau**2 * loss


def _correlation(student: Tensor, teacher: Tensor, dim: int) -> Tensor:
    """Pearson's, of probabilities along an axis."""
    mean = student.mean(dim, keepdim=True)
    student = student - mean
    teacher = teacher - teacher.mean(dim, keepdim=True)
    spread = torch.linalg.vector_norm(student, dim=dim)
    product = spread * torch.linalg.vector_norm(teacher, dim=dim)
    correlation = (student * teacher).sum(dim) / (product + 1e-8)
    # Equal probabilities differ from their mean by rounding alone, and the
    # gradient there would be of the order of 1e8.
    rounding = 16 * torch.finfo(mean.dtype).eps * student.shape[dim] ** 0.5
    return correlation.masked_fill(spread <= rounding * mean.squeeze(dim), 0)
