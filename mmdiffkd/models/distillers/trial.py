"""Running a network on two images before training, if possible on meta."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .forward import arguments_of


class _Wrapped(nn.Module):
    """Makes a function of a network callable by ``functional_call``."""

    def __init__(self, network: nn.Module, function: Callable) -> None:
        super().__init__()
        self.network = network
        self.function = function

    def forward(self, *args) -> None:
        self.function(self.network, *args)


@contextmanager
def in_mode(network: nn.Module, training: bool) -> Iterator[None]:
    """Train or eval mode inside the block, without synchronising."""
    modes = {module: module.training for module in network.modules()}
    network.train(training)
    for module in network.modules():
        # Synchronised batch norm in train mode wants a GPU and other ranks.
        if isinstance(module, nn.SyncBatchNorm):
            module.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _untouched_buffers(network: nn.Module) -> Iterator[None]:
    saved = [(b, b.detach().clone()) for b in network.buffers()]
    try:
        yield
    finally:
        for buffer, value in saved:
            buffer.data.copy_(value)


def run_on_meta(
    network: nn.Module,
    input_shape: tuple[int, ...],
    function: Callable,
    heads: Iterable[str],
) -> dict[str, Tensor]:
    """Run a network on two images, all on meta tensors.

    Args:
        network (nn.Module): The network.
        input_shape (tuple[int, ...]): The shape of an image.
        function (Callable): What runs it, with the arguments of
            :func:`~.forward.forward_to_taps`.
        heads (Iterable[str]): The paths of heads to call.

    Returns:
        dict[str, Tensor]: The meta tensors in the place of its parameters
        and buffers, by name.
    """
    images = torch.zeros(2, *input_shape, device='meta')
    state = {
        name: torch.empty_like(tensor, device='meta').requires_grad_(
            tensor.requires_grad
        )
        for name, tensor in [
            *network.named_parameters(),
            *network.named_buffers(),
        ]
    }
    functional_call(
        _Wrapped(network, function),
        {f'network.{name}': tensor for name, tensor in state.items()},
        (images, arguments_of(network, heads, images)),
        # Shared modules are then swapped, and restored, once.
        tie_weights=False,
        strict=False,
    )
    return state


def run_for_real(
    network: nn.Module,
    input_shape: tuple[int, ...],
    function: Callable,
    heads: Iterable[str],
) -> dict[str, Tensor]:
    """The same with arithmetic; the network's buffers are restored."""
    images = torch.zeros(2, *input_shape, device=_device_of(network))
    with _untouched_buffers(network):
        function(network, images, arguments_of(network, heads, images))
    return dict(network.named_parameters())


def _device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
