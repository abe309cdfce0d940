"""What every distillation neck returns."""

from typing import NamedTuple

from torch import Tensor


class Aligned(NamedTuple):
    """A pair of tensors that a loss can compare.

    Attributes:
        student (Tensor): The student's side; carries gradients.
        teacher (Tensor): The target, detached, of the same shape.
        losses (dict[str, Tensor]): Scalars that the neck itself learns from,
            already weighted; named ``loss_*``.
        metrics (dict[str, Tensor]): Detached scalars to log.
    """

    student: Tensor
    teacher: Tensor
    losses: dict[str, Tensor]
    metrics: dict[str, Tensor]
