"""Which images a network takes: from the config, or found by trying."""

from collections.abc import Iterable, Sequence
from itertools import product

import torch
from torch import nn

from .normalization import channels_differ, channels_of_images
from .probe import CannotRun, dry_run, times
from .taps import TapError, Taps

#: Sizes to try where a network does not run on what was assumed.
_OTHER_SIZES = 224, 256, 32, 64, 128, 384, 512
#: After so many with one and the same error it is not the size.
_SAME = 2


def image_shapes(
    network: nn.Module,
    input_size: int | tuple[int, int] | None = None,
    input_shape: Sequence[int] | None = None,
) -> list[tuple[int, ...]]:
    """The shapes that the images of a network may have, the likeliest first.

    Args:
        network (nn.Module): The student.
        input_size (int or tuple[int, int], optional): Height and width, from
            the config. Defaults to None: the backbone's ``img_size``, else
            224 for classifiers and 256 otherwise; then the sizes that the
            network's parts declare.
        input_shape (Sequence[int], optional): The whole shape without the
            batch, (C, H, W) or (T, C, H, W), from the config. Defaults to
            None: the channels of the first convolution or of the data
            preprocessor's mean, else 3.

    Raises:
        ValueError: If one of the two makes no sense, or both are given.
    """
    if input_shape is not None:
        if input_size is not None:
            raise ValueError(
                f'`input_size` is {input_size!r} and `input_shape` is '
                f'{input_shape!r}, which say the same. Leave one out.'
            )
        sides = _positive_ints(input_shape)
        if len(sides) not in (3, 4):
            raise ValueError(
                f'`input_shape` is {input_shape!r}. Give the shape of an '
                'image without the batch, (channels, height, width), or of a '
                'clip, (frames, channels, height, width), in positive ints.'
            )
        *_, first, _, last = sides
        if last <= 4 < first:
            raise ValueError(
                f'`input_shape` is {input_shape!r}, which has {first} '
                'channels on images of a width of '
                f'{last}. The order is (channels, height, width).'
            )
        return [sides]
    if input_size is not None:
        both = [input_size] * 2 if type(input_size) is int else input_size
        sides = _positive_ints(both)
        if len(sides) != 2:
            raise ValueError(
                f'`input_size` is {input_size!r}. Give a positive int or '
                '(height, width).'
            )
        sizes = [sides]
    else:
        backbone = getattr(network, 'backbone', None)
        head = getattr(network, 'head', None)
        usual = 224 if hasattr(head, 'num_classes') else 256
        sizes = [
            *_declared_sizes([backbone]),
            (usual, usual),
            *_declared_sizes(network.modules()),
        ]
    return [
        (channels, *size)
        for size in dict.fromkeys(sizes)
        for channels in channels_of_images(network)
    ]


def _positive_ints(value: object) -> tuple[int, ...]:
    """A sequence of positive integers as a tuple; anything else as ()."""
    if isinstance(value, Sequence) and all(
        type(side) is int and side > 0 for side in value
    ):
        return tuple(value)
    return ()


def _declared_sizes(modules: Iterable[object]) -> list[tuple[int, int]]:
    """The sizes of images that modules name, as mmpretrain's and timm's do."""
    found = []
    for module in modules:
        owners = module, getattr(module, 'config', None)
        for owner, name in product(owners, ('img_size', 'image_size')):
            size = getattr(owner, name, None)
            size = _positive_ints([size] * 2 if type(size) is int else size)
            if len(size) == 2:
                found.append(size)
    return found


def find_shape(
    network: nn.Module,
    taps: Taps,
    candidates: Sequence[tuple[int, ...]],
    training: bool = False,
) -> tuple[tuple[int, ...], dict[str, list[torch.Size]], dict[str, str]]:
    """Dry-run a network on images of the first shape that it takes.

    Args:
        network (nn.Module): The student or the teacher.
        taps (Taps): Its taps.
        candidates (Sequence[tuple[int, ...]]): The shapes to try.
        training (bool): The mode to run in. Defaults to False.

    Returns:
        tuple: The shape, and what :func:`dry_run` returns.

    Raises:
        ValueError: If it takes none of them; the message says what the
            network said, and a shape that it takes, if one was found.
    """
    errors = []
    for shape in candidates:
        try:
            return shape, *dry_run(network, taps, shape, training)
        except CannotRun as error:
            errors.append(error)
    cure = _cure(network, taps, candidates, training, errors[0])
    raise ValueError(f'{errors[0]} {cure}') from errors[0]


def _cure(
    network: nn.Module,
    taps: Taps,
    failed: Sequence[tuple[int, ...]],
    training: bool,
    error: CannotRun,
) -> str:
    """What to do about a network that does not run; what it says was tried."""
    *front, height, width = failed[0]
    sizes = dict.fromkeys(
        [
            (height, width),
            *_declared_sizes(network.modules()),
            *((n, n) for n in _OTHER_SIZES),
        ]
    )
    channels = dict.fromkeys([front[-1], *channels_of_images(network)])
    said, tried = {error.said}, []
    for size, count in product(sizes, channels):
        shape = *front[:-1], count, *size
        if shape in failed:
            continue
        if len(tried) > _SAME and len(said) == 1:
            # It is not the shape.
            break
        try:
            dry_run(network, taps, shape, training)
        except CannotRun as other:
            said.add(other.said)
            tried.append(times(shape))
            continue
        except TapError:
            continue
        if taps.role == 'teacher' and count != front[-1]:
            return channels_differ(front[-1], count)
        if taps.role == 'teacher':
            return (
                f'It runs on images of {times(shape)}. Set '
                f'`teacher.input_size={size}`, so that the images are resized '
                f'for it{_by_its_own_means(network)}.'
            )
        key = f'`input_shape={shape}`'
        if count == front[-1]:
            key = f'`input_size={size}`'
        return (
            f'It runs on images of {times(shape)}. Set {key} of the '
            'distiller, and let the pipelines give such images.'
        )
    same = ' and says the same' if len(said) == 1 else ''
    return (
        f'Nor does it run on images of {" or ".join(tried)}{same}. If a head '
        "wants more than features (a transformer's decoder, say), tap "
        'backbone or neck. If it takes other images, set `input_size` of the '
        'distiller to their (height, width), or `input_shape` to their shape '
        'without the batch.'
    )


def _by_its_own_means(network: nn.Module) -> str:
    """How position embeddings would fit images of any size, as a cure."""
    fixed = any(
        getattr(module, 'dynamic_img_size', None) is False
        for module in network.modules()
    )
    return ', or build it with dynamic_img_size=True' if fixed else ''
