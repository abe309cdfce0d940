"""The precision in which diffusion's arithmetic is done."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return the tensor in float32, or in float64 if it is that already.

    Half precision rounds alpha-bar at t = 0 to 1, which turns the last
    denoising step into a division by zero.
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def computing_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """The dtype in which a layer with weights of ``dtype`` computes.

    It is autocast's, if autocast is on for the device, and else the weights'.
    Autocast leaves float64 as it is.
    """
    if _autocasts(device) and dtype != torch.float64:
        return torch.get_autocast_dtype(device.type)
    return dtype


@contextmanager
def untracked(device: torch.device) -> Iterator[None]:
    """Run a block without recording gradients, under autocast as well.

    In older versions of PyTorch autocast keeps the weights that it has cast
    under ``no_grad`` and uses them, cut off from the parameters, in the
    forward passes that follow. So nothing that is cast in here is kept.
    """
    with torch.no_grad():
        if not _autocasts(device):
            yield
            return
        with torch.autocast(
            device.type,
            torch.get_autocast_dtype(device.type),
            cache_enabled=False,
        ):
            yield


def _autocasts(device: torch.device) -> bool:
    # PyTorch has no autocast on meta, where the dry run takes place.
    return device.type != 'meta' and torch.is_autocast_enabled(device.type)
