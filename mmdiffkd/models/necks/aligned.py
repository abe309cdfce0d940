"""What every distillation neck returns."""

from typing import NamedTuple

from torch import Tensor


class Aligned(NamedTuple):
    """A pair of tensors that a loss can compare.

    A ``joint`` neck, which sees all levels at once, gives lists of tensors.

    Attributes:
        student (Tensor): The student's side; carries gradients.
        teacher (Tensor): The target, of the same shape; detached, unless the
            neck's documentation says otherwise.
        losses (dict[str, Tensor]): Scalars that the neck itself learns from,
            already weighted; named ``loss_*``.
        metrics (dict[str, Tensor]): Detached scalars to log.
    """

    student: Tensor
    teacher: Tensor
    losses: dict[str, Tensor]
    metrics: dict[str, Tensor]
