"""Gram anchoring: how alike the positions of an image are."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from mmdiffkd.registry import MODELS

from .base import DistillLoss
from .operands import inner_products, unit


@MODELS.register_module()
class GramLoss(DistillLoss):
    """Mean squared difference of the cosines between positions.

    Each position of a map, a token of a transformer, is scaled to length 1.
    The inner products of all pairs of positions of an image are its Gram
    matrix, (H * W, H * W). The mean is over the entries of this matrix and
    over samples. Student and teacher may differ in channels. A position
    without length has the cosine 0 with everything.

    The matrices take B * (H * W)^2 numbers, for student and teacher each:
    for 8 images of 32 x 32 positions 34 MB in float32. Tap a map of a larger
    stride if this is too much.

    The released code's setting for ViT-7B raises loss_weight to 2, keeps
    negative cosines, as is done here, and has an earlier state of the
    student for a teacher.

    Args:
        loss_weight (float): Factor of the loss. Defaults to 1.0.

    Source: Simeoni et al., "DINOv3" (2025), Gram anchoring, in its released
    code's form: a mean instead of the paper's squared Frobenius norm.
    """

    any_channels = True
    feature = 'map'

    def check_shapes(
        self, student: Sequence[int], teacher: Sequence[int]
    ) -> None:
        """Refuse maps of one position, beside what every loss refuses.

        Args:
            student (Sequence[int]): The shape of the student's tensor.
            teacher (Sequence[int]): That of the teacher's.

        Raises:
            ValueError: If a map has one position, whose cosine with itself
                is always 1.
        """
        super().check_shapes(student, teacher)
        if tuple(teacher[2:]) == (1, 1):
            raise ValueError(
                'GramLoss compares the positions of a map, but the maps have '
                f'the shapes {tuple(student)} and {tuple(teacher)}, one '
                'position: the loss would always be 0. Tap a map before it '
                'is pooled, or take SPLoss, which compares samples'
            )

    def distance(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Compare two maps.

        Args:
            preds_S (Tensor): The student's, (B, C, H, W).
            preds_T (Tensor): The teacher's, the same but for C.

        Returns:
            Tensor: A scalar, without ``loss_weight``.
        """
        return F.mse_loss(*map(_gram_matrices, (preds_S, preds_T)))


def _gram_matrices(feature: Tensor) -> Tensor:
    """The cosines of all pairs of positions, (B, H * W, H * W)."""
    return inner_products(unit(feature).flatten(2).mT)
