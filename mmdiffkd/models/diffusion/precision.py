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


def computing_dtype(parameter: Tensor) -> torch.dtype:
    """The dtype in which a layer with this weight computes.

    It is autocast's, if autocast is on for the weight's device, and else the
    weight's own.
    """
    device = parameter.device.type
    if _autocasts(device):
        return torch.get_autocast_dtype(device)
    return parameter.dtype


@contextmanager
def untracked(device: torch.device) -> Iterator[None]:
    """Run a block without recording gradients, under autocast as well.

    Before PyTorch 2.10, autocast kept the weights that it had cast under
    ``no_grad`` and used them, cut off from the parameters, in the forward
    passes that came after. So nothing cast in here is kept.
    """
    with torch.no_grad():
        if not _autocasts(device.type):
            yield
            return
        with torch.autocast(
            device.type,
            torch.get_autocast_dtype(device.type),
            cache_enabled=False,
        ):
            yield


def _autocasts(device: str) -> bool:
    # PyTorch has no autocast on meta, where the dry run takes place.
    return device != 'meta' and torch.is_autocast_enabled(device)
