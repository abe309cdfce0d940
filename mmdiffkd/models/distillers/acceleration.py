"""Switches that make a teacher's forward pass faster, each of them checked."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .folding import fold_batch_norms
from .spec import TeacherSpec
from .tapped_network import TappedNetwork

#: How far folding and layout may move a tapped tensor, relative to its norm.
TOLERANCE = 1e-4
#: The same on the training device, where multiplications may be TF32.
COARSE_TOLERANCE = 0.5


class _Moved(ValueError):
    """A switch moves what the taps yield, or the network cannot take it."""


@torch.no_grad()
def accelerate(
    tapped: TappedNetwork,
    spec: TeacherSpec,
    key: str,
    label: str,
    is_random: bool,
) -> bool:
    """Apply a teacher's switches, and see that its taps yield what they did.

    A switch that is None is applied where that is so, and left out where it
    is not.

    Args:
        tapped (TappedNetwork): The teacher's network, with its weights.
        spec (TeacherSpec): The teacher's keys.
        key (str): Where it stands in the distiller's config, for messages.
        label (str): What the log calls it.
        is_random (bool): Whether nothing has given it weights.

    Returns:
        bool: Whether images are to be given with channels last.

    Raises:
        ValueError: If a switch that is on does not fit the network.
    """
    network = tapped.network
    switches = _Switches.of(spec, network, is_random)
    if not (switches.fold or switches.layout or spec.dtype):
        return False
    taps = list(tapped.taps.taps)
    device = next(network.parameters()).device
    # A GPU's coarser TF32 would hide an error, or look like one.
    network.to('cpu').eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, *tapped.input_shape, generator=generator)
    images = images.to(next(network.parameters()))
    try:
        expected = tapped.read(images, taps)
    except RuntimeError:
        if switches.required or spec.dtype:
            raise
        # On a CPU some networks do not run: half precision, say.
        network.to(device).eval()
        return False

    def check(switch: str, limit: float) -> float:
        """How far a switch moves what the taps yield, relative to its norm."""
        try:
            found = tapped.read(images, taps)
        except RuntimeError as error:
            raise _Moved(
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
            raise _Moved(
                f'`{key}.{switch}` moves what the teacher yields by '
                f'{moved:.1e} of its norm; more than {limit:g} is no '
                'rounding. Leave it out.'
            )
        return moved

    def attempt(
        switch: str, undo: Callable[[], None], limit: float = TOLERANCE
    ) -> bool:
        """Whether a switch holds; one that need not is taken back."""
        try:
            check(switch, limit)
        except _Moved:
            if getattr(spec, switch):
                raise
            undo()
            return False
        return True

    applied = []
    if switches.fold:
        count, restore = fold_batch_norms(
            network, lambda: tapped.read(images, taps)
        )
        holds = attempt('fold_batch_norm', restore)
        if holds and (count or spec.fold_batch_norm):
            applied.append(f'{count} batch norms folded')

    def lay_out_plainly() -> None:
        nonlocal images
        images = images.contiguous()
        _lay_out(network, torch.contiguous_format)

    layout = switches.layout
    if layout:
        _lay_out(network, torch.channels_last)
        images = channels_last(images)
        layout = attempt('channels_last', lay_out_plainly)
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
    elif layout and device.type != 'cpu':
        layout = attempt('channels_last', lay_out_plainly, COARSE_TOLERANCE)
    if layout:
        applied.append('channels last')
    if applied:
        print_log(f'{label.capitalize()}: {", ".join(applied)}', 'current')
    return layout


class _Switches(NamedTuple):
    """What is to be tried, and whether any of it has to hold."""

    fold: bool
    layout: bool
    required: bool

    @classmethod
    def of(
        cls, spec: TeacherSpec, network: nn.Module, is_random: bool
    ) -> '_Switches':
        """Those of a teacher.

        Without a word nothing is tried on a module that is given built, since
        others may hold it, on random weights, since others may be loaded
        later, and on a network without batch norms.
        """
        given = spec.fold_batch_norm, spec.channels_last
        unsaid = not (spec.is_built or is_random) and any(
            isinstance(module, _BatchNorm) for module in network.modules()
        )
        fold, layout = (unsaid if each is None else each for each in given)
        return cls(fold, layout, any(given))


def _lay_out(network: nn.Module, layout: torch.memory_format) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=layout)


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
