"""Tokens become maps, and maps get one size, before they are compared."""

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_RESIZE = 8
_KINDS = {2: 'a vector', 3: 'tokens', 4: 'a map'}


@lru_cache
def _grid_of_tokens(
    count: int, height: int, width: int
) -> tuple[int, int, int] | None:
    """Rows, columns and leading class tokens of ``count`` tokens.

    The grid is the image's size over a stride. Strides that divide both
    sides are tried first, then all others, with sizes rounded up and down.
    """
    strides = range(1, min(height, width) + 1)
    exact = [p for p in strides if height % p == 0 and width % p == 0]
    grids = [(height // p, width // p) for p in exact]
    for p in strides:
        grids.append((-(-height // p), -(-width // p)))
        grids.append((height // p, width // p))
    for candidates in (grids[: len(exact)], grids):
        for extra in range(3):
            for rows, columns in candidates:
                if rows * columns == count - extra:
                    return rows, columns, extra
    return None


def tokens_to_map(tokens: Tensor, image: Sequence[int]) -> Tensor:
    """Lay tokens (B, N, C) out as a map (B, C, H, W).

    Args:
        tokens (Tensor): The tokens, row by row; up to two leading class
            tokens are dropped.
        image (Sequence[int]): Height and width of the input, which give the
            map's proportions.

    Raises:
        ValueError: If no such map has N elements.
    """
    grid = _grid_of_tokens(tokens.shape[1], *image)
    if grid is None:
        raise ValueError(
            f'{tokens.shape[1]} tokens make no map of the proportions of a '
            f'{image[0]} x {image[1]} image. Tap a module that returns a '
            'map, or tokens of one regular grid.'
        )
    rows, columns, extra = grid
    return tokens[:, extra:].transpose(1, 2).unflatten(2, (rows, columns))


def prepared_pair(
    student: Tensor, teacher: Tensor, image: Sequence[int], resize: bool
) -> tuple[Tensor, Tensor]:
    """Turn tokens into maps, resize the student's, detach the teacher's.

    Args:
        student (Tensor): The student's tensor, as tapped.
        teacher (Tensor): The teacher's.
        image (Sequence[int]): Height and width of the input.
        resize (bool): Whether the student's map gets the teacher's size.
    """
    if student.ndim == 3:
        student = tokens_to_map(student, image)
    if teacher.ndim == 3:
        teacher = tokens_to_map(teacher, image)
    if resize and student.shape[2:] != teacher.shape[2:]:
        student = F.interpolate(student, teacher.shape[2:], mode='bilinear')
    return student, teacher.detach()


def prepared_shapes(
    student: torch.Size,
    teacher: torch.Size,
    image: Sequence[int],
    texts: tuple[str, str],
) -> tuple[torch.Size, torch.Size]:
    """The shapes of two tensors once tokens are maps.

    Args:
        student (torch.Size): The shape of the student's tensor, as tapped.
        teacher (torch.Size): That of the teacher's.
        image (Sequence[int]): Height and width of the input.
        texts (tuple[str, str]): The two taps, for messages.

    Raises:
        ValueError: If the two are not of one kind, or their heights or
            widths are more than a factor of 8 apart.
    """
    s, t = (
        tokens_to_map(torch.empty(shape, device='meta'), image).shape
        if len(shape) == 3
        else shape
        for shape in (student, teacher)
    )
    if len(s) != len(t) or len(s) not in (2, 4):
        raise ValueError(
            f'{texts[0]} is {_KINDS.get(len(student), "a tensor")} of shape '
            f'{tuple(student)}, {texts[1]} is '
            f'{_KINDS.get(len(teacher), "a tensor")} of shape '
            f'{tuple(teacher)}. Compare vectors (B, C) with vectors, and '
            'maps (B, C, H, W) or tokens (B, N, C) with maps or tokens.'
        )
    for side, a, b in zip(('height', 'width'), s[2:], t[2:]):
        if max(a, b) > MAX_RESIZE * min(a, b):
            raise ValueError(
                f'the {side} of the maps differs by more than a factor of '
                f'{MAX_RESIZE} (student {a}, teacher {b}). Tap stages of '
                'nearer strides.'
            )
    return s, t
