"""Moves results by the last digit, in which processors differ."""

import zlib

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# The order of their sums is the kernel's own, and with it the last digit.
PRODUCTS = {
    *('matmul', '__matmul__', '__rmatmul__', 'mm', 'bmm', 'mv', 'dot', 'vdot'),
    *('inner', 'einsum', 'tensordot', 'multi_dot', 'chain_matmul', 'cdist'),
    *('addmm', 'addmv', 'addbmm', 'baddbmm', 'linear', 'bilinear'),
    *('conv1d', 'conv2d', 'conv3d'),
    *('conv_transpose1d', 'conv_transpose2d', 'conv_transpose3d'),
    *('scaled_dot_product_attention', 'multi_head_attention_forward'),
}
# Called as (input, weight, bias, ...). The bias is added after the product is
# moved: where the two cancel, the result is smaller than its rounding error.
BIASED = {'linear', *(name for name in PRODUCTS if name.startswith('conv'))}


def moved(result: Tensor, seed: int) -> Tensor:
    """A tensor with each element moved by -1, 0 or +1 unit in the last place.

    Equal tensors are moved alike; the gradient passes unchanged. Elements
    that are not finite stay as they are, and so does what has no values (a
    tensor on the meta device, or a fake one).

    Args:
        result (Tensor): Of any shape.
        seed (int): Another one moves other elements.
    """
    if (
        type(result) is not Tensor
        or result.device.type != 'cpu'
        or not result.is_floating_point()
    ):
        return result
    values = result.detach()
    content = values.contiguous().view(torch.uint8).numpy().tobytes()
    generator = torch.Generator().manual_seed(zlib.crc32(content) + seed)
    step = torch.randint(-1, 2, values.shape, generator=generator)
    towards = torch.where(step == 0, values, step * torch.inf)
    neighbours = values.nextafter(towards.to(values.dtype))
    finite = values.isfinite() & neighbours.isfinite()
    return result + torch.where(finite, neighbours - values, 0)


class Perturbation(TorchFunctionMode):
    """Moves the results of matrix products, linear layers and convolutions.

    What backward passes and other processes compute is not moved.

    Args:
        seed (int): Another one moves other elements.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(function, '__name__', '')
        if name not in PRODUCTS or 'out' in kwargs:
            return function(*args, **kwargs)
        bias = None
        if name in BIASED and len(args) > 2:
            bias, args = args[2], (*args[:2], None, *args[3:])
        elif name in BIASED:
            bias = kwargs.pop('bias', None)
        result = function(*args, **kwargs)
        if not isinstance(result, Tensor):
            return moved(result[0], self.seed), *result[1:]
        result = moved(result, self.seed)
        if bias is None:
            return result
        axes = 0 if name == 'linear' else args[1].dim() - 2
        return result + bias.reshape(-1, *[1] * axes).to(result.dtype)
