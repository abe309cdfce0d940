"""Relational distillation: distances and angles between samples."""

from torch import Tensor
from torch.nn import functional as F

from mmdiffkd.registry import MODELS

from .base import DistillLoss
from .operands import divided, inner_products, unit


def _embeddings(
    preds_S: Tensor, preds_T: Tensor, with_l2_norm: bool
) -> list[Tensor]:
    """Both as rows (B, D), of length 1 if asked."""
    rows = [x.flatten(1) for x in (preds_S, preds_T)]
    return [unit(x) for x in rows] if with_l2_norm else rows


@MODELS.register_module()
class DistanceWiseRKD(DistillLoss):
    """Smooth L1 difference of the distances between samples.

    The Euclidean distances of all pairs of flattened features, divided by
    their mean, which is over the batch of one process. The difference is
    averaged over the (B, B) table, diagonal included. Student and teacher may
    differ in channels. Two samples in the same place have distance 0,
    without a gradient; a single sample gives 0. Names and defaults are those
    of mmrazor's loss.

    The comparisons take features as they are, ``with_l2_norm=False``, after
    pooling, with loss_weight = 25 beside 50 for the angles.

    Args:
        loss_weight (float): Factor of the loss. Defaults to 25.0.
        with_l2_norm (bool): Whether to scale each sample's feature to
            length 1 first. Defaults to True.

    Source: Park et al., "Relational Knowledge Distillation" (2019), the
    distance-wise loss, in its released code's form.
    """

    any_channels = True

    def __init__(
        self, loss_weight: float = 25.0, with_l2_norm: bool = True
    ) -> None:
        super().__init__(loss_weight)
        self.with_l2_norm = with_l2_norm

    def distance(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Compare two batches of features.

        Args:
            preds_S (Tensor): The student's, (B, C) or (B, C, H, W).
            preds_T (Tensor): The teacher's, the same but for C.

        Returns:
            Tensor: A scalar, without ``loss_weight``.
        """
        embeddings = _embeddings(preds_S, preds_T, self.with_l2_norm)
        # Each pair once.
        pairs = [F.pdist(x) for x in embeddings]
        scaled = [divided(x, x.mean()) for x in pairs]
        total = 2 * F.smooth_l1_loss(*scaled, reduction='sum')
        return total / len(preds_S) ** 2


@MODELS.register_module()
class AngleWiseRKD(DistillLoss):
    """Smooth L1 difference of the angles that three samples form.

    For each sample, the cosines between the directions to all pairs of
    others, of flattened features, in the batch of one process; the mean is
    over the (B, B, B) table, in which pairs with the sample itself are 0.
    Student and teacher may differ in channels. Two samples in the same place
    have no direction between them; a single sample gives 0. Names and
    defaults are those of mmrazor's loss.

    The directions take B * B * D numbers, D the length of a flattened
    feature, for student and teacher each and again for their gradients. For
    256 images and 512 channels this is 134 MB in float32 for student and
    teacher each. Tap pooled features.

    Args:
        loss_weight (float): Factor of the loss. Defaults to 50.0.
        with_l2_norm (bool): Whether to scale each sample's feature to
            length 1 first; the comparisons do not. Defaults to True.

    Source: Park et al., "Relational Knowledge Distillation" (2019), the
    angle-wise loss, in its released code's form.
    """

    any_channels = True

    def __init__(
        self, loss_weight: float = 50.0, with_l2_norm: bool = True
    ) -> None:
        super().__init__(loss_weight)
        self.with_l2_norm = with_l2_norm

    def distance(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Compare two batches of features.

        Args:
            preds_S (Tensor): The student's, (B, C) or (B, C, H, W).
            preds_T (Tensor): The teacher's, the same but for C.

        Returns:
            Tensor: A scalar, without ``loss_weight``.
        """
        embeddings = _embeddings(preds_S, preds_T, self.with_l2_norm)
        angles = [
            inner_products(unit(x[None] - x[:, None], dim=2))
            for x in embeddings
        ]
        return F.smooth_l1_loss(*angles)
