"""Moves results by the last digit, in which processors differ."""

import zlib

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

# The order of their sums is the kernel's own, and with it the last digit.
PRODUCTS = {
    *('matmul', '__matmul__', '__rmatmul__', 'mm', 'bmm', 'mv', 'dot', 'vdot'),
    *('inner', 'einsum', 'tensordot', 'multi_dot', 'chain_matmul', 'cdist'),
    *('addmm', 'addmv', 'addbmm', 'baddbmm', 'linear', 'bilinear'),
    *('conv1d', 'conv2d', 'conv3d'),
    *('conv_transpose1d', 'conv_transpose2d', 'conv_transpose3d'),
    *('scaled_dot_product_attention', 'multi_head_attention_forward'),
}
# Called as (input, weight, bias, ...).
BIASED = {'linear', *(name for name in PRODUCTS if name.startswith('conv'))}


def move(result: Tensor, seed: int, bias: Tensor | None = None) -> None:
    """Move each element by -1, 0 or +1 unit in the last place, in its place.

    Equal tensors are moved alike. Autograd, and modes that watch operators,
    see nothing of it. Elements that are not finite stay as they are, and so
    does what has no values of its own: a tensor on the meta device, a fake
    one, one of ``torch.func``.

    Args:
        result (Tensor): Of any shape, in memory of its own.
        seed (int): Another one moves other elements.
        bias (Tensor, optional): What was added last, of a shape that
            broadcasts. Where it is larger than the result, the unit is that
            of the bias: a small difference of large numbers is as inexact
            as they are. Defaults to None.
    """
    if (
        type(result) is not Tensor
        or result.device.type != 'cpu'
        or not result.is_floating_point()
        or torch._C._functorch.is_functorch_wrapped_tensor(result)
    ):
        return
    with _disable_current_modes():
        _move(result.data, seed, None if bias is None else bias.data)


def _move(values: Tensor, seed: int, bias: Tensor | None) -> None:
    content = values.clone(memory_format=torch.contiguous_format).reshape(-1)
    content = content.view(torch.uint8).numpy().tobytes()
    generator = torch.Generator().manual_seed(zlib.crc32(content) + seed)
    steps = torch.randint(-1, 2, values.shape, generator=generator)
    size = values.abs()
    if bias is not None:
        size = size.maximum(bias.abs().to(size.dtype))
    unit = size.nextafter(torch.full_like(size, torch.inf)) - size
    moved = values + steps.to(values.dtype) * unit
    values.copy_(torch.where(moved.isfinite(), moved, values))


class Perturbation(TorchFunctionMode):
    """Moves the results of matrix products, linear layers and convolutions.

    What backward passes, compiled functions and other processes compute is
    not moved.

    Args:
        seed (int): Another one moves other elements.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        name = getattr(function, '__name__', '')
        if name not in PRODUCTS:
            return result
        bias = None
        if name in BIASED:
            bias = args[2] if len(args) > 2 else kwargs.get('bias')
        if bias is not None and name != 'linear':
            bias = bias.reshape(-1, *[1] * (args[1].dim() - 2))
        move(
            result if isinstance(result, Tensor) else result[0],
            self.seed,
            bias,
        )
        return result
