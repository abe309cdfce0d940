"""Probabilistic knowledge transfer."""

from torch import Tensor

from mmdiffkd.registry import MODELS

from .base import DistillLoss
from .operands import inner_products, unit

_EPS = 1e-7


@MODELS.register_module()
class PKTLoss(DistillLoss):
    """Divergence of the distributions over a sample's neighbours.

    The cosine similarities of all pairs of flattened features, moved to
    [0, 1], each row divided by its sum (the sample itself included), are
    read as probabilities p; the loss is the mean over the (B, B) table of
    ``p_teacher * log(p_teacher / p_student)``. Student and teacher may
    differ in channels. The probabilities are over the batch of one process; a
    single sample gives 0.

    The comparisons take loss_weight = 30000 on CIFAR-100, on pooled features.

    Args:
        loss_weight (float): Factor of the loss. Defaults to 1.0.

    Source: Passalis and Tefas, "Learning Deep Representations with
    Probabilistic Knowledge Transfer" (2018), in its released code's form.
    """

    any_channels = True

    def distance(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Compare two batches of features.

        Args:
            preds_S (Tensor): The student's, (B, C) or (B, C, H, W).
            preds_T (Tensor): The teacher's, the same but for C.

        Returns:
            Tensor: A scalar, without ``loss_weight``.
        """
        student, teacher = map(_neighbours, (preds_S, preds_T))
        ratio = (teacher + _EPS) / (student + _EPS)
        return (teacher * ratio.log()).mean()


def _neighbours(feature: Tensor) -> Tensor:
    """Probabilities of all samples as neighbours of each, (B, B)."""
    rows = unit(feature.flatten(1), eps=_EPS)
    similarity = (inner_products(rows) + 1) / 2
    return similarity / similarity.sum(1, keepdim=True)
