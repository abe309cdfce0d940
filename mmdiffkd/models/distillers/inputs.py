"""What the teacher gets of a batch."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from .taps import Taps


class TeacherInputs:
    """Finds the teacher's images in what the student gets.

    A tensor is given to both. Where the student gets anything else (a list
    of views, a dict of branches), the teacher gets what the student's
    backbone gets, so that their rows belong together: one tensor if the
    backbone runs once, all of them as one batch if it runs several times.

    Args:
        student (nn.Module): The student. If inputs are no tensor, its
            backbone gets a forward hook.
        shape (tuple[int, ...]): The shape of an image that was assumed at
            start-up, (C, H, W) or (T, C, H, W).
    """

    def __init__(self, student: nn.Module, shape: tuple[int, ...]) -> None:
        self._student = student
        self._shape = shape
        self._taps: Taps | None = None
        self._said = False

    @contextmanager
    def record(self, inputs: object) -> Iterator[None]:
        """Listen to the student's step inside the block.

        Args:
            inputs (Tensor or object): What the student gets.

        Raises:
            ValueError: If it is no tensor and the student has no backbone.
        """
        if isinstance(inputs, Tensor):
            yield
            return
        if self._taps is None:
            if not isinstance(
                getattr(self._student, 'backbone', None), nn.Module
            ):
                raise ValueError(
                    f'the student gets {_described(inputs)}, and has no '
                    '`backbone` that shows which images the teacher should '
                    'get. Give the student one tensor of images, or a '
                    'module `backbone` through which its images go.'
                )
            self._taps = Taps(self._student, [_BACKBONE], 'student')
        with self._taps.record():
            try:
                yield
            except Exception:
                # Images of another shape are the likelier reason.
                for images in self._taps.recorded:
                    self.check(images)
                raise

    def images(self, inputs: object) -> tuple[Tensor, list[int]]:
        """The images of the step that was recorded.

        Args:
            inputs (Tensor or object): What the student got.

        Returns:
            tuple: The images (B, C, H, W), and when the backbone got each
            part of them, where they are several batches, see
            :meth:`~.taps.Taps.read`.

        Raises:
            ValueError: If the backbone did not get images that fit.
        """
        if isinstance(inputs, Tensor):
            return inputs, []
        views = self._taps.read(_BACKBONE)
        times = self._taps.times(_BACKBONE)
        self._taps.clear()
        shapes = [tuple(view.shape) for view in views]
        if len({shape[1:] for shape in shapes}) > 1:
            raise ValueError(
                f'the student gets {_described(inputs)}, and its backbone ran '
                f'on batches of the shapes {shapes}, which the teacher cannot '
                'get as one. Use views of one size.'
            )
        if any(view.requires_grad for view in views):
            raise ValueError(
                f'the student gets {_described(inputs)}, and its `backbone` '
                'gets what an earlier layer gave, no images that the teacher '
                'could get, too. Put that layer into the backbone, or give '
                'the student one tensor of images.'
            )
        self.check(views[0])
        if not self._said:
            self._said = True
            print_log(
                f'The student gets {_described(inputs)}. The teacher gets '
                "what the student's backbone gets: "
                + ' and '.join(map(str, shapes))
                + (', as one batch.' if len(views) > 1 else ', once.'),
                'current',
            )
        if len(views) == 1:
            return views[0], []
        return torch.cat(views), times

    def check(self, inputs: object) -> None:
        """See that images are what the dry run assumed, but for their size.

        Args:
            inputs (Tensor or object): Images (B, C, H, W); anything else
                passes.

        Raises:
            ValueError: If not.
        """
        if not isinstance(inputs, Tensor):
            return
        found = tuple(inputs.shape[1:])
        if (len(found), found[:-2]) != (len(self._shape), self._shape[:-2]):
            raise ValueError(
                f'the images of this batch have the shape {found}, but '
                f'{self._shape} was assumed at start-up. Set '
                f'`input_shape={found}` of the distiller, or correct the '
                'pipeline or the data preprocessor.'
            )


_BACKBONE = 'backbone@input'


def _described(inputs: object) -> str:
    """What a batch is, in words."""
    if isinstance(inputs, Mapping):
        return f'a dict with the keys {sorted(map(str, inputs))}'
    if isinstance(inputs, list | tuple):
        return f'a {type(inputs).__name__} of {len(inputs)} items'
    return f'a {type(inputs).__name__}'
