"""From a tensor as a network lays it out to a map or to vectors."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_RESIZE = 8
#: How many axes a tensor of a layout has. In 'NC' every axis but the last
#: counts samples, so that two is the least.
AXES = {'NCHW': 4, 'NHWC': 4, 'NLC': 3, 'NCL': 3, 'NC': 2}


def grids(
    height: int, width: int, exact: bool = False
) -> dict[int, set[tuple[int, int]]]:
    """Rows and columns of an image's patches, by stride.

    Args:
        height (int): Of the image.
        width (int): Of the image.
        exact (bool): Only strides that divide both sides; else sizes are
            rounded up and down. Defaults to False.
    """
    found = {}
    for stride in range(1, min(height, width) + 1):
        down = height // stride, width // stride
        up = -(-height // stride), -(-width // stride)
        if down == up or not exact:
            found[stride] = {down, up}
    return found


@lru_cache
def grid_of(
    count: int, height: int, width: int, exact: bool = False
) -> tuple[int, int] | None:
    """The rows and columns of so many patches of an image.

    Strides that divide both sides come first.

    Args:
        count (int): The number of patches.
        height (int): Of the image.
        width (int): Of the image.
        exact (bool): Whether to try these strides alone. Defaults to False.

    Returns:
        tuple[int, int] or None: None if there is no such grid.
    """
    for only in (True,) if exact else (True, False):
        for sizes in grids(height, width, only).values():
            for rows, columns in sorted(sizes):
                if rows * columns == count:
                    return rows, columns
    return None


@lru_cache
def prefixes_of(
    counts: tuple[int, int],
    images: tuple[tuple[int, int], tuple[int, int]],
) -> list[int]:
    """How many tokens come before the grid, given two sizes of images.

    Args:
        counts (tuple[int, int]): The number of tokens at each size.
        images (tuple): Height and width of each.

    Returns:
        list[int]: The numbers with which both are grids of one stride; of
        strides that divide the images, if there are such.
    """
    for exact in (True, False):
        first, second = (grids(*image, exact) for image in images)
        prefixes = {
            counts[0] - a * b
            for stride in first.keys() & second.keys()
            for a, b in first[stride]
            for c, d in second[stride]
            if counts[0] - a * b == counts[1] - c * d >= 0
        }
        if prefixes:
            break
    return sorted(prefixes)


def tokens_to_map(
    tokens: Tensor, image: Sequence[int], prefix_tokens: int = 0
) -> Tensor:
    """Lay tokens (B, N, C) out as a map (B, C, H, W).

    Args:
        tokens (Tensor): The tokens, row by row.
        image (Sequence[int]): Height and width of the input, which give the
            map's proportions.
        prefix_tokens (int): How many leading tokens, of the class say,
            belong to no position and are dropped. Defaults to 0.

    Raises:
        ValueError: If no such map has as many elements as tokens are left.
    """
    count = tokens.shape[1] - prefix_tokens
    grid = grid_of(count, *image)
    if grid is None:
        raise ValueError(
            f'{tokens.shape[1]} tokens, {prefix_tokens} of which are prefix '
            'tokens, make no map of the proportions of a '
            f'{image[0]} x {image[1]} image. Set `prefix_tokens` of the '
            'entry to the number of leading tokens without a position (the '
            "class token, registers), or layout='NC' to compare each token "
            'by itself.'
        )
    return tokens[:, prefix_tokens:].transpose(1, 2).unflatten(2, grid)


@dataclass(frozen=True)
class Layout:
    """What the axes of a tensor mean.

    Attributes:
        axes (str): 'NCHW', 'NHWC'; 'NLC' or 'NCL' (tokens of the image's
            grid); or 'NC' (vectors; with more than two axes each element of
            all but the last is a sample of its own).
        prefix_tokens (int): Leading tokens that are dropped.
    """

    axes: str
    prefix_tokens: int = 0

    def arrange(self, tensor: Tensor, image: Sequence[int]) -> Tensor:
        """Make it a map (B, C, H, W) or vectors (n, C).

        Args:
            tensor (Tensor): As tapped.
            image (Sequence[int]): Height and width of the input.

        Raises:
            ValueError: If tokens make no grid.
        """
        if self.axes == 'NHWC':
            return tensor.movedim(-1, 1)
        if self.axes == 'NCL':
            tensor = tensor.transpose(1, 2)
        if self.axes in ('NLC', 'NCL'):
            return tokens_to_map(tensor, image, self.prefix_tokens)
        if self.axes == 'NC' and tensor.ndim > 2:
            return tensor[:, self.prefix_tokens :].flatten(0, -2)
        return tensor

    def arranged(
        self, shape: Sequence[int], image: Sequence[int]
    ) -> torch.Size:
        """The shape that :meth:`arrange` gives."""
        return self.arrange(torch.empty(shape, device='meta'), image).shape

    @property
    def remark(self) -> str:
        """What is worth a word in a log; empty for maps and vectors."""
        words = [] if self.axes in ('NCHW', 'NC') else [self.axes]
        if self.prefix_tokens:
            words.append(f'{self.prefix_tokens} prefix tokens dropped')
        return ', '.join(words)


@dataclass(frozen=True)
class Level:
    """What is compared at a level: of the student, and of the teacher.

    Attributes:
        names (tuple[str, str]): Where it is read, such as 'neck[0]'.
        layouts (tuple[Layout, Layout]): How the tensors are laid out.
        shapes (tuple[torch.Size, torch.Size]): Their shapes with a batch of
            2, once they are maps or vectors.
        image (tuple[int, int]): Height and width of the images that these
            shapes belong to.
        teacher_image (tuple[int, int] or None): The one size of the
            teacher's images. Defaults to None: that of the student's.
    """

    names: tuple[str, str]
    layouts: tuple[Layout, Layout]
    shapes: tuple[torch.Size, torch.Size]
    image: tuple[int, int]
    teacher_image: tuple[int, int] | None = None

    def prepare(
        self,
        student: Tensor,
        teacher: Tensor,
        image: Sequence[int],
        resize: bool,
    ) -> tuple[Tensor, Tensor]:
        """Arrange both, resize the student's map, detach the teacher's.

        The teacher's map is contiguous: on a CPU, torch 2.11 crashes in the
        backward pass of group norm over a channels-last map that needs no
        gradient.

        Args:
            student (Tensor): The student's tensor, as tapped.
            teacher (Tensor): The teacher's.
            image (Sequence[int]): Height and width of the student's input.
            resize (bool): Whether the student's map gets the teacher's size.

        Raises:
            ValueError: If tokens make no grid, or one of another stride.
        """
        student, teacher = (
            self.arrange(side, tensor, image)
            for side, tensor in enumerate((student, teacher))
        )
        if resize and student.shape[2:] != teacher.shape[2:]:
            student = F.interpolate(
                student, teacher.shape[2:], mode='bilinear'
            )
        return student, teacher.detach().contiguous()

    def arrange(
        self, side: int, tensor: Tensor, image: Sequence[int]
    ) -> Tensor:
        """Make the student's (0) or the teacher's (1) a map or vectors.

        Args:
            side (int): 0 or 1.
            tensor (Tensor): As tapped.
            image (Sequence[int]): Height and width of the student's input.

        Raises:
            ValueError: If tokens make no grid, or one of another stride.
        """
        layout, start = self.layouts[side], self.image
        if side and self.teacher_image:
            image = start = self.teacher_image
        arranged = layout.arrange(tensor, image)
        if layout.axes in ('NLC', 'NCL'):
            expected = self.shapes[side][2:]
            for found, before, now, then in zip(
                arranged.shape[2:], expected, image, start
            ):
                # Sizes are rounded, once at start-up and once now.
                if abs(found * then - before * now) >= max(now, then):
                    raise ValueError(
                        f'{self.names[side]} has {tensor.shape[1]} tokens for '
                        f'an image of {image[0]} x {image[1]}, but at '
                        f'start-up a grid of {expected[0]} x {expected[1]} '
                        f'for {start[0]} x {start[1]}: some are '
                        'masked or dropped. Tap a module with all of them, '
                        'or leave none out.'
                    )
        return arranged


def check_pair(
    student: torch.Size, teacher: torch.Size, texts: tuple[str, str]
) -> None:
    """Refuse maps with vectors, other numbers of vectors, far apart sizes.

    Args:
        student (torch.Size): The shape of the student's tensor, a map or
            vectors.
        teacher (torch.Size): That of the teacher's.
        texts (tuple[str, str]): Where they are read, for messages.

    Raises:
        ValueError: Names both and the cure.
    """
    if len(student) != len(teacher):
        kinds = (
            'a vector' if len(s) == 2 else 'a map' for s in (student, teacher)
        )
        (s_kind, t_kind) = kinds
        raise ValueError(
            f'{texts[0]} is {s_kind} of shape {tuple(student)}, {texts[1]} '
            f'is {t_kind} of shape {tuple(teacher)}. Compare vectors (B, C) '
            'with vectors, and maps (B, C, H, W) or tokens (B, N, C) with '
            'maps or tokens. Some backbones pool what they return: tap their '
            "last stage for its map, for instance 'backbone.stages.3'."
        )
    if len(student) == 2 and student[0] != teacher[0]:
        raise ValueError(
            f'{texts[0]} gives {student[0] // 2} vectors an image, {texts[1]} '
            f'gives {teacher[0] // 2}. Tap as many in both networks.'
        )
    for side, a, b in zip(('height', 'width'), student[2:], teacher[2:]):
        if max(a, b) > MAX_RESIZE * min(a, b):
            raise ValueError(
                f'the {side} of the maps differs by more than a factor of '
                f'{MAX_RESIZE} (student {a}, teacher {b}). Tap stages of '
                'nearer strides.'
            )
