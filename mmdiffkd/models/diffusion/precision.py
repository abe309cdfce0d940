"""The precision below which diffusion's arithmetic never goes."""

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return the tensor in float32, or in float64 if it is that already.

    Half precision rounds alpha-bar at t = 0 to 1, which turns the last
    denoising step into a division by zero.
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
