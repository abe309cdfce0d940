"""The base class of all necks, which checks ranks and channels."""

from mmengine.model import BaseModule
from torch import Tensor

from ..part import DistillPart
from .aligned import Aligned

_SHAPES = {'map': 'maps (B, C, H, W)', 'vector': 'vectors (B, C)'}
_FEATURES = {4: 'map', 2: 'vector'}


def check_channel_arguments(**channels: int | None) -> None:
    """Refuse channels that are missing or not positive.

    Args:
        **channels (int | None): Numbers by their arguments' names.

    Raises:
        ValueError: Names the argument and the cure.
    """
    for name, value in channels.items():
        if value is None:
            raise ValueError(
                f'{name}=None: only a distiller can read the channels off '
                f'its networks; give {name} to a neck that stands alone'
            )
        if value < 1:
            raise ValueError(f'{name}={value} must be at least 1')


def check_batch_statistics(side: str, tensor: Tensor) -> None:
    """Refuse a batch in which batch norm finds one value per channel.

    Args:
        side (str): ``'student'`` or ``'teacher'``.
        tensor (Tensor): What batch norm will see.

    Raises:
        ValueError: Names the shape and the cure.
    """
    shape = tuple(tensor.shape)
    if tensor.numel() == shape[1]:
        raise ValueError(
            f'The {side} tensor of shape {shape} has one value per channel, '
            'from which batch norm cannot learn: use a batch size of 2 or '
            'more, and drop_last=True in train_dataloader if its last batch '
            'holds a single sample'
        )


class DistillNeck(DistillPart, BaseModule):
    """Makes a student's and a teacher's tensor comparable.

    A subclass writes ``forward(student, teacher) -> Aligned``. Both tensors
    are maps (B, C, H, W) of one height and width, or vectors (B, C). Class
    attributes say how a neck is treated:

    Attributes:
        feature (str or None): ``'map'`` or ``'vector'``, if it takes one of
            the two alone. Where it is an argument of the constructor, a
            distiller reads it off the shape of what is tapped. Defaults to
            None.
        joint (bool): Whether it sees all levels at once: it is built with
            lists of channels, and takes and returns lists of tensors, of
            their own sizes. Defaults to False.
        resizes (bool): Whether it changes the size of maps itself. If not,
            the student's map has been resized to the teacher's size before.
            Defaults to False.
        to_classes (bool): Whether it hands on logits, whatever it takes.
            Defaults to False.

    Args:
        init_cfg (dict, optional): Initialisation. Defaults to None.
    """

    feature: str | None = None
    joint = False
    resizes = False
    to_classes = False

    def set_channels(
        self, student_channels: int | None, teacher_channels: int | None
    ) -> None:
        """Keep the channels that :meth:`check` expects.

        Args:
            student_channels (int, optional): Those of the student's tensor.
            teacher_channels (int, optional): Those of the teacher's.

        Raises:
            ValueError: If one is None or not positive.
        """
        check_channel_arguments(
            student_channels=student_channels,
            teacher_channels=teacher_channels,
        )
        self.student_channels = student_channels
        self.teacher_channels = teacher_channels

    def forward(self, student: Tensor, teacher: Tensor) -> Aligned:
        """Align two tensors.

        Args:
            student (Tensor): The student's, (B, C, H, W) or (B, C).
            teacher (Tensor): The teacher's.
        """
        raise NotImplementedError

    def check(self, student: Tensor, teacher: Tensor) -> None:
        """Refuse tensors of another rank, or of other channels.

        Args:
            student (Tensor): The student's.
            teacher (Tensor): The teacher's.

        Raises:
            ValueError: Names the side, the shape and the cure.
        """
        self.check_side('student', student, self.student_channels)
        self.check_side('teacher', teacher, self.teacher_channels)

    def check_side(self, side: str, tensor: Tensor, channels: int) -> None:
        """Refuse one tensor, see :meth:`check`.

        Args:
            side (str): ``'student'`` or ``'teacher'``.
            tensor (Tensor): The tensor.
            channels (int): The channels that it should have.

        Raises:
            ValueError: If rank or channels differ.
        """
        shape = tuple(tensor.shape)
        found = _FEATURES.get(len(shape))
        if found is None or self.feature not in (None, found):
            raise ValueError(
                f'The {side} tensor has the shape {shape}, but '
                + self._expectation(found)
            )
        if shape[1] != channels:
            raise ValueError(
                f'The {side} tensor of shape {shape} has {shape[1]} channels, '
                f'but {side}_channels={channels}: set '
                f'{side}_channels={shape[1]}'
            )

    def _expectation(self, found: str | None) -> str:
        """What the neck takes instead, and the cure."""
        if type(self).feature is not None:
            return (
                f'this neck takes {_SHAPES[self.feature]}: tap another '
                'module, or use ProjectionNeck, say'
            )
        if self.feature is None or found is None:
            takes = _SHAPES.get(self.feature, ' or '.join(_SHAPES.values()))
            return (
                f'the neck takes {takes}: reshape it (a distiller turns '
                'tokens (B, N, C) into maps by itself)'
            )
        return (
            f'feature={self.feature!r} takes {_SHAPES[self.feature]}: set '
            f'feature={found!r}'
        )

    def trajectory(
        self, student: Tensor, teacher: Tensor, noise: Tensor | None = None
    ) -> list[tuple[str, Tensor]]:
        """Every stage of the student's map, for pictures.

        A neck that has none is not drawn.

        Args:
            student (Tensor): The student's map.
            teacher (Tensor): The teacher's.
            noise (Tensor, optional): What :meth:`draw` gives under this
                name. Defaults to None.

        Returns:
            list[tuple[str, Tensor]]: Captions and maps, in order.
        """
        return []
