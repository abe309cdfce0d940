"""Switches that make a teacher's forward pass faster, each of them checked."""

from contextlib import AbstractContextManager, nullcontext

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from .folding import fold_batch_norms
from .spec import TeacherSpec
from .tapped_network import TappedNetwork

#: How far folding and layout may move a tapped tensor, relative to its norm.
TOLERANCE = 1e-4
#: The same on the training device, where multiplications may be TF32.
COARSE_TOLERANCE = 0.5


@torch.no_grad()
def accelerate(
    tapped: TappedNetwork, spec: TeacherSpec, key: str, label: str
) -> None:
    """Apply a teacher's switches, and see that its taps yield what they did.

    Args:
        tapped (TappedNetwork): The teacher's network, with its weights.
        spec (TeacherSpec): The teacher's keys.
        key (str): Where it stands in the distiller's config, for messages.
        label (str): What the log calls it.

    Raises:
        ValueError: If a switch does not fit the network.
    """
    if not (spec.fold_batch_norm or spec.channels_last or spec.dtype):
        return
    network = tapped.network
    taps = list(tapped.taps.taps)
    device = next(network.parameters()).device
    # A GPU's coarser TF32 would hide an error, or look like one.
    network.to('cpu').eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, *tapped.input_shape, generator=generator)
    images = images.to(next(network.parameters()))
    expected = tapped.read(images, taps)

    def check(switch: str, limit: float) -> float:
        """How far a switch moves what the taps yield, relative to its norm."""
        try:
            found = tapped.read(images, taps)
        except RuntimeError as error:
            raise ValueError(
                f'`{key}.{switch}` is set, with which '
                f'{type(network).__name__} cannot run on '
                f'{images.device.type}: {error}. Leave it out.'
            ) from error
        parts = [
            torch.dist(a.to(b), b) / b.norm().clamp_min(1e-30)
            for tap, levels in expected.items()
            for a, b in zip(found[tap], levels)
        ]
        moved = torch.stack(parts).max().item()
        # Written so that NaN is refused.
        if not moved <= limit:
            raise ValueError(
                f'`{key}.{switch}` moves what the teacher yields by '
                f'{moved:.1e} of its norm; more than {limit:g} is no '
                'rounding. Leave it out.'
            )
        return moved

    if spec.fold_batch_norm:
        count = fold_batch_norms(network, lambda: tapped.read(images, taps))
        print_log(
            f'{label.capitalize()}: {count} batch norms folded', 'current'
        )
        check('fold_batch_norm', TOLERANCE)
    if spec.channels_last:
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.to(memory_format=torch.channels_last)
        images = channels_last(images)
        check('channels_last', TOLERANCE)
    network.to(device).eval()
    images = images.to(device)
    if spec.dtype is not None:
        with autocast(spec.autocast_dtype, device):
            moved = check('dtype', COARSE_TOLERANCE)
        print_log(
            f'{label.capitalize()} in torch.{spec.dtype}: what its taps yield '
            f'for random images differs by {moved:.1%} of its norm at most',
            'current',
        )
    elif device.type != 'cpu':
        check('channels_last', COARSE_TOLERANCE)


def channels_last(images: Tensor) -> Tensor:
    """Images (B, C, H, W) in that layout; clips stay as they are."""
    if images.dim() != 4:
        return images
    return images.contiguous(memory_format=torch.channels_last)


def autocast(
    dtype: torch.dtype | None, device: torch.device
) -> AbstractContextManager:
    """Autocast to a type; None leaves the precision as it is."""
    if dtype is None:
        return nullcontext()
    return torch.autocast(device.type, dtype)
