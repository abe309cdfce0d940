"""Activation checkpointing of modules that hold batch norm."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpointed(
    module: nn.Module, function: Callable[..., Any], *inputs: Any
) -> Any:
    """Call a function and keep its inputs alone; backward calls it again.

    The result, the gradients and the statistics of batch norm are those of a
    plain call.

    Args:
        module (nn.Module): Holds what batch norm the function uses.
        function (Callable): What to call.
        *inputs: Its inputs.

    Returns:
        Any: What it returns.
    """
    if torch.compiler.is_compiling():
        # A compiled backward pass recomputes values and repeats no effects.
        return checkpoint(function, *inputs, use_reentrant=False)
    return checkpoint(
        function,
        *inputs,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), frozen_statistics(module)),
    )


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Let batch norm normalise by the batch without remembering it.

    The running statistics stay arguments of the normalisation, at a momentum
    of 0: both runs have to save the same tensors for the backward pass.
    """
    norms = [
        (norm, norm.momentum, norm.num_batches_tracked)
        for norm in module.modules()
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.training
    ]
    for norm, _, _ in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = None
    try:
        yield
    finally:
        for norm, momentum, num_batches_tracked in norms:
            norm.momentum = momentum
            norm.num_batches_tracked = num_batches_tracked
