"""Tensors that a formula makes, so that anyone can compute with them again."""

from collections.abc import Callable

import torch
from torch import Tensor


def wave(
    function: Callable, frequency: float, phase: float, *shape: int
) -> Tensor:
    """``function(frequency * i + phase)`` for the i-th element, in float64.

    Args:
        function (Callable): ``torch.sin`` or ``torch.cos``.
        frequency (float): In radians an element.
        phase (float): In radians.
        *shape (int): The shape of the tensor.
    """
    count = torch.Size(shape).numel()
    index = torch.arange(count, dtype=torch.float64)
    return function(frequency * index + phase).reshape(shape)
