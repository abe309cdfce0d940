"""How maps lie in memory: decided here, by measurement, and nowhere else.

A *plain* map is contiguous in the order (B, C, H, W), a *channels-last* one
in the order (B, H, W, C). Both have the shape (B, C, H, W) and hold the same
numbers; convolutions and batch norm differ in speed. The two must not be
mixed: batch norm whose input lies one way and whose gradient the other is
many times slower than either.
"""

import torch
from torch import Tensor

from .precision import computing_dtype

# Maps with this many channels or more lie channels last; a device and dtype
# that is not listed keeps maps plain. CPU: measured over channels and sizes on
# x86 with AVX-512; what makes few channels slow in float32 is batch norm.
# CUDA: not measured; in half precision, tensor cores take channels-last maps
# without reordering them.
_CHANNELS_LAST_FROM = {
    ('cpu', torch.float32): 32,
    ('cpu', torch.bfloat16): 1,
    ('cuda', torch.float16): 32,
    ('cuda', torch.bfloat16): 32,
}


def best_memory_format(
    channels: int, device: torch.device, dtype: torch.dtype
) -> torch.memory_format:
    """The faster layout of maps.

    Args:
        channels (int): C of the maps.
        device (torch.device): Where they are.
        dtype (torch.dtype): That of the convolutions' weights. Autocast, if
            it is on, outdoes it.

    Returns:
        torch.memory_format: ``torch.channels_last`` or
        ``torch.contiguous_format``.
    """
    key = device.type, computing_dtype(device, dtype)
    if channels >= _CHANNELS_LAST_FROM.get(key, float('inf')):
        return torch.channels_last
    return torch.contiguous_format


def memory_format_of(tensor: Tensor) -> torch.memory_format:
    """The layout in which a tensor lies; what is neither counts as plain."""
    if (
        tensor.dim() == 4
        and tensor.is_contiguous(memory_format=torch.channels_last)
        and not tensor.is_contiguous()
    ):
        return torch.channels_last
    return torch.contiguous_format


def lay_out(
    tensor: Tensor, memory_format: torch.memory_format | None = None
) -> Tensor:
    """Convert a map to a memory format, and its gradient back to the map's.

    Args:
        tensor (Tensor): A map (B, C, H, W); anything else is returned as it
            is.
        memory_format (torch.memory_format, optional): The layout. Defaults
            to None, the map's own, which leaves the map alone and sees to the
            gradient.

    Returns:
        Tensor: The same values.
    """
    own = memory_format_of(tensor)
    if tensor.dim() != 4 or memory_format == own:
        return tensor
    return _LayOut.apply(tensor, memory_format or own)


class _LayOut(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor, memory_format):
        ctx.memory_format = memory_format_of(tensor)
        return tensor.contiguous(memory_format=memory_format)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.contiguous(memory_format=ctx.memory_format), None
