"""Finding out how a tapped tensor is laid out, or asking."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from .layout import AXES, Layout, grid_of, grids, prefixes_of
from .rois import box_head_of
from .taps import Tap

_CHANNELS_FIRST = (
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.BatchNorm2d,
    nn.SyncBatchNorm,
    nn.GroupNorm,
    nn.InstanceNorm2d,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
)
_MAPS = 'NCHW', 'NHWC'
# Parameters that networks prepend to their tokens, by the end of their names.
_PREFIXES = (
    'cls_token',
    'class_token',
    'class_embedding',
    'dist_token',
    'distillation_token',
    'reg_token',
    'register_tokens',
)


@dataclass(frozen=True)
class Tapped:
    """A tensor that a tap yielded in the dry run.

    Attributes:
        tap (str): The tap, as in the config.
        name (str): The tensor, such as 'neck[0]' for the tap 'neck[:]'.
        shape (torch.Size): Its shape with a batch of 2.
        role (str): 'student' or 'teacher'.
        network (nn.Module, optional): Where it was tapped.
        elsewhere (Callable): Its shape for images of another size, and that
            size; None if the network takes no other.
        frames (int): The frames of a clip, 1 for images.
        image (tuple[int, int], optional): The one size to which the images
            of its network are resized. Defaults to None: that of the
            student's.
    """

    tap: str
    name: str
    shape: torch.Size
    role: str = 'student'
    network: nn.Module | None = None
    elsewhere: Callable[[], tuple[torch.Size, tuple[int, int]] | None] = (
        lambda: None
    )
    frames: int = 1
    image: tuple[int, int] | None = None

    def modules(self) -> Iterator[nn.Module]:
        """The tapped module and what it lies in, from the inside out."""
        path = Tap(self.tap).path
        while self.network is not None:
            yield self.network.get_submodule(path)
            if not path:
                break
            path = path.rpartition('.')[0]


def layout_of(
    tapped: Tapped,
    image: tuple[int, int],
    axes: str | None = None,
    prefix_tokens: int | None = None,
) -> Layout:
    """What the axes of a tensor mean.

    What the entry says counts. Else only what is certain: a module that has
    one layout, a grid of the image that one reading allows, the axes that
    grow with the image, the prefix tokens that a network declares.

    Args:
        tapped (Tapped): The tensor.
        image (tuple[int, int]): Height and width of the images of the dry
            run.
        axes (str, optional): The entry's ``layout``. Defaults to None.
        prefix_tokens (int, optional): The entry's. Defaults to None.

    Raises:
        ValueError: If the tensor is not what the entry says, or more than
            one reading is left; the message shows the readings.
    """
    rank = len(tapped.shape)
    if axes is None and prefix_tokens is not None and rank == 3:
        axes = 'NLC'
    if axes is not None:
        _check_said(tapped, axes, image)
    elif rank == 4:
        axes = _axes_of_map(tapped, image)
    elif rank == 2:
        axes = 'NC'
    if prefix_tokens and rank != 3:
        raise ValueError(
            f'`prefix_tokens` is {prefix_tokens}, but {_text(tapped)} has no '
            'tokens. Leave it out: tensors with three axes alone have them.'
        )
    if axes != 'NC' and rank in (3, 4):
        _check_batch(tapped)
    if axes != 'NC' and rank == 3:
        _check_order(tapped)
    if rank == 3 and axes != 'NC' and prefix_tokens is None:
        fits = [
            found
            for found in _readings_of_tokens(tapped, image)
            if axes in (None, found.axes)
        ]
        if len(fits) == 1:
            return fits[0]
        if axes is None:
            raise _ambiguous(tapped, _token_readings(tapped, image))
    if axes is None:
        raise ValueError(
            f'{_text(tapped)}: {rank} axes are neither a map (B, C, H, W), '
            'tokens (B, N, C) nor vectors (B, C). Tap another module'
            + (", or say layout='NC'." if rank > 2 else '.')
        )
    return Layout(axes, prefix_tokens or 0)


def _text(tapped: Tapped) -> str:
    return f"the {tapped.role}'s {tapped.name} of shape {tuple(tapped.shape)}"


def _check_said(tapped: Tapped, axes: str, image: tuple[int, int]) -> None:
    """Refuse a layout of other axes, or whose channels are positions."""
    rank = len(tapped.shape)
    if rank != AXES[axes] and not (axes == 'NC' and rank > 2):
        fitting = [a for a, n in AXES.items() if n == rank] + ['NC']
        raise ValueError(
            f'`layout` is {axes!r}, which has {AXES[axes]} axes, but '
            f'{_text(tapped)} has {rank}. Use '
            f'{" or ".join(map(repr, dict.fromkeys(fitting)))}; an entry for '
            'each layout, or student_layout and teacher_layout, where they '
            'differ.'
        )
    if rank == 4 and axes != 'NC':
        fits = _grids_of_map(tapped, image)
        if len(fits) == 1 and axes not in fits:
            raise ValueError(
                f'`layout` is {axes!r}, but {_text(tapped)} is a grid of the '
                f'image in {fits[0]!r} alone. Correct `layout`, leave it out, '
                'or say student_layout and teacher_layout, where they differ.'
            )
    found = tapped.elsewhere()
    channels = -1 if axes == 'NC' else axes.index('C')
    if found is not None and found[0][channels] != tapped.shape[channels]:
        height, width = found[1]
        raise ValueError(
            f'`layout` is {axes!r}, but the channels of {_text(tapped)} '
            f'would then change with the image: for {height} x {width} its '
            f'shape is {tuple(found[0])}. Correct `layout`, or leave it out.'
        )


def _check_batch(tapped: Tapped) -> None:
    """Refuse windows, say, in the place of images."""
    if tapped.shape[0] not in (2, 2 * tapped.frames):
        raise ValueError(
            f'{_text(tapped)} holds {tapped.shape[0]} samples for 2 images, '
            'so that its first axis is not the batch (windows of attention, '
            'say). Tap the block or the stage around it, or set '
            "layout='NC' to compare the vectors on its last axis."
        )


def _check_order(tapped: Tapped) -> None:
    """Refuse tokens that do not come row by row."""
    for module in tapped.modules():
        reason = None
        if hasattr(module, 'unroll'):
            # As in Hiera.
            reason = 'they come in the order of windows'
        if tapped.role == 'student' and any(
            'PatchDropout' in type(child).__name__
            and getattr(child, 'prob', 0) > 0
            for child in module.children()
        ):
            reason = 'some are dropped at random in training'
        if reason:
            raise ValueError(
                f'{_text(tapped)}: its tokens make no map, because {reason}. '
                'Drop none (`patch_drop_rate=0`), tap what comes after the '
                'tokens, or use a network that keeps them row by row.'
            )


def _ambiguous(
    tapped: Tapped, readings: Sequence[tuple[str, str]]
) -> ValueError:
    lines = [f'{_text(tapped)} has more than one reading:']
    lines += [f'- {key}: {words}.' for key, words in readings]
    side = tapped.role
    lines.append(
        f'Add the right one to the entry, as `layout` or `{side}_layout`.'
    )
    return ValueError('\n'.join(lines))


def _axes_of_map(tapped: Tapped, image: tuple[int, int]) -> str:
    """'NCHW' or 'NHWC' of a tensor with four axes."""
    modules = list(tapped.modules())
    if box_head_of(tapped.tap) or (
        modules and isinstance(modules[0], _CHANNELS_FIRST)
    ):
        return 'NCHW'
    if modules and _is_channels_last(modules[0]):
        return 'NHWC'
    fits = _grids_of_map(tapped, image)
    if len(fits) == 1:
        return fits[0]
    found = tapped.elsewhere()
    if found is not None:
        grown = [i for i in (1, 2, 3) if found[0][i] != tapped.shape[i]]
        if grown == [2, 3]:
            return 'NCHW'
        if grown == [1, 2]:
            return 'NHWC'
    for module in modules:
        axes = getattr(module, 'output_fmt', None)
        if axes in ('NCHW', 'NHWC'):
            return axes
    parts = list(modules[0].modules()) if modules else []
    if any(isinstance(m, _CHANNELS_FIRST) for m in parts) and not any(
        map(_is_channels_last, parts)
    ):
        return 'NCHW'
    _, a, b, c = tapped.shape
    nchw, nhwc = (
        '' if axes in fits else ', no grid of the image' for axes in _MAPS
    )
    raise _ambiguous(
        tapped,
        [
            ("layout='NCHW'", f'{a} channels on a map of {b} x {c}{nchw}'),
            ("layout='NHWC'", f'{c} channels on a map of {a} x {b}{nhwc}'),
            ("layout='NC'", f'{a * b} vectors of {c} channels, a sample each'),
        ],
    )


def _grids_of_map(tapped: Tapped, image: tuple[int, int]) -> list[str]:
    """The layouts in which a tensor with four axes is a grid of the image."""
    _, a, b, c = tapped.shape
    sizes = set().union(*grids(*image).values())
    sides = (b, c), (a, b)
    return [axes for axes, side in zip(_MAPS, sides) if side in sizes]


def _is_channels_last(module: nn.Module) -> bool:
    """Whether a module works on the last axis.

    Subclasses may permute the axes themselves.
    """
    if type(module) is nn.LayerNorm:
        return len(module.normalized_shape) == 1
    return type(module) is nn.Linear


def _readings_of_tokens(
    tapped: Tapped, image: tuple[int, int]
) -> list[Layout]:
    """The ways to read a tensor with three axes as tokens of the image.

    Empty where it is not certain that one of its axes counts tokens.
    """
    declared = _declared_prefix(tapped)
    found = tapped.elsewhere()
    if tapped.shape[1] == 1 and (found is None or found[0][1] == 1):
        # The class token alone.
        return [Layout('NC')]
    if found is not None:
        shape, size = found
        grown = [i for i in (1, 2) if shape[i] != tapped.shape[i]]
        if len(grown) != 1:
            return []
        (axis,) = grown
        counts = tapped.shape[axis], shape[axis]
        fits = prefixes_of(counts, (image, size))
        if declared in fits:
            fits = [declared]
        return [Layout(('NLC', 'NCL')[axis - 1], prefix) for prefix in fits]
    if declared is None:
        return []
    # What is read may have lost the prefix already.
    fits = [
        Layout(axes, prefix)
        for axis, axes in ((1, 'NLC'), (2, 'NCL'))
        for prefix in dict.fromkeys((declared, 0))
        if grid_of(tapped.shape[axis] - prefix, *image, exact=True)
    ]
    if isinstance(next(tapped.modules()), nn.LayerNorm):
        fits = [layout for layout in fits if layout.axes == 'NLC']
    # A grid behind the declared tokens is no coincidence.
    behind = [layout for layout in fits if layout.prefix_tokens]
    return behind or fits


def _token_readings(
    tapped: Tapped, image: tuple[int, int]
) -> list[tuple[str, str]]:
    """What a tensor with three axes may be: keys of an entry, and words."""
    readings = []
    for axis, axes in ((1, 'NLC'), (2, 'NCL')):
        count, channels = tapped.shape[axis], tapped.shape[3 - axis]
        grid = grid_of(count, *image)
        words = f'{count} tokens of {channels} channels, '
        if grid:
            words += f'on a grid of {grid[0]} x {grid[1]}'
        else:
            words += 'with prefix_tokens=NUMBER for those without a position'
        if axes == 'NLC':
            words += '; under a loss over classes a distribution each'
        readings.append((f"layout='{axes}'", words))
    _, count, channels = tapped.shape
    words = f'{count} vectors of {channels} channels, a sample each'
    return [*readings, ("layout='NC'", words)]


def _declared_prefix(tapped: Tapped) -> int | None:
    """The prefix tokens of the network around a tap, None if it has none.

    It is an attribute, or the number of parameters that are prepended. A
    network with patches and neither has no prefix.
    """
    for module in tapped.modules():
        for name in ('num_prefix_tokens', 'num_extra_tokens'):
            number = getattr(module, name, None)
            if isinstance(number, int):
                return number
        children = dict(module.named_children())
        owners = [
            module,
            *(c for n, c in children.items() if n == 'embeddings'),
        ]
        numbers = [
            parameter.shape[:-1].numel()
            for owner in owners
            for name, parameter in owner.named_parameters(recurse=False)
            if name.endswith(_PREFIXES)
        ]
        if numbers:
            return sum(numbers)
        if {'patch_embed', 'embeddings'} & children.keys() or any(
            'PatchEmbed' in type(child).__name__ for child in children.values()
        ):
            return 0
    return None
