"""What data preprocessors do to the values of images, and converting it."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from mmengine.logging import print_log
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import Tensor, nn

#: How to say what normalises images, for messages.
EXAMPLE = (
    "dict(type='ImgDataPreprocessor', mean=[123.675, 116.28, 103.53], "
    'std=[58.395, 57.12, 57.375], bgr_to_rgb=True)'
)


@dataclass(frozen=True)
class Normalization:
    """What a data preprocessor does to the values of images.

    It may swap red and blue. Then it subtracts a mean from each channel and
    divides by a standard deviation.

    Attributes:
        mean (tuple[float, ...]): One a channel, or one for all channels.
            Defaults to (0.0,).
        std (tuple[float, ...]): The same of the standard deviations.
            Defaults to (1.0,).
        swap (bool): Whether red and blue change places. Defaults to False.
        axis (int): Where a batch has its channels. Defaults to -3, as in
            images (B, C, H, W).
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    swap: bool = False
    axis: int = -3

    @classmethod
    def of(cls, preprocessor: nn.Module | None) -> Self | None:
        """Read it from a data preprocessor.

        Args:
            preprocessor (nn.Module, optional): One of MMEngine's, one that
                derives from them, or one with their attributes. None changes
                no value.

        Returns:
            Normalization or None: None for any other, of which it is not
            known what it does.
        """
        names = {kind.__name__ for kind in type(preprocessor).__mro__}
        if 'MultiBranchDataPreprocessor' in names:
            return cls.of(preprocessor.data_preprocessor)
        if preprocessor is None or type(preprocessor) is BaseDataPreprocessor:
            return cls()
        enabled = getattr(preprocessor, '_enable_normalize', None)
        if enabled is None or 'TwoNormDataPreprocessor' in names:
            return None
        values = {}
        if enabled:
            values = {
                name: tuple(torch.as_tensor(given).flatten().tolist())
                for name in ('mean', 'std')
                if (given := getattr(preprocessor, name, None)) is not None
            }
            if len(values) < 2:
                return None
        clips = getattr(preprocessor, 'format_shape', None) == 'NCTHW'
        swap = any(
            getattr(preprocessor, name, False)
            for name in ('to_rgb', '_channel_conversion', 'channel_conversion')
        )
        return cls(swap=swap, axis=-4 if clips else -3, **values)

    @property
    def raw(self) -> bool:
        """Whether the values stay as they are."""
        return {*self.mean} == {0.0} and {*self.std} == {1.0}

    @property
    def channels(self) -> int | None:
        """The number of channels; None where a value is for all of them."""
        count = max(len(self.mean), len(self.std))
        return count if count > 1 else None

    def __str__(self) -> str:
        values = 'no normalisation (raw values, usually 0 to 255)'
        if not self.raw:
            mean, std = (
                ', '.join(f'{value:g}' for value in each)
                for each in (self.mean, self.std)
            )
            values = f'mean [{mean}], std [{std}]'
        return f'{values}, ' + (
            'red and blue swapped' if self.swap else 'channels as loaded'
        )


class Conversion(NamedTuple):
    """How a network's images become another's.

    Attributes:
        scale (Tensor): What to multiply by, (C, 1, 1) or (1, 1, 1), behind
            the channels as many axes as the images have.
        shift (Tensor): What to add then, of the same shape.
        swap (bool): Whether to swap red and blue first.
        axis (int): Where a batch has its channels.
    """

    scale: Tensor
    shift: Tensor
    swap: bool
    axis: int

    @classmethod
    def between(
        cls, student: Normalization, teacher: Normalization
    ) -> Self | None:
        """What makes the student's images the teacher's.

        Returns:
            Conversion or None: None where both do the same.

        Raises:
            ValueError: If there is no conversion.
        """
        check_channels(student.channels, teacher.channels)
        for role, each in (('student', student), ('teacher', teacher)):
            if 0 in each.std:
                raise ValueError(
                    f'`{role}.data_preprocessor.std` is {list(each.std)}, '
                    'by which nothing can be divided. Use numbers above 0.'
                )
        channels = student.channels or teacher.channels or 1
        swap = student.swap != teacher.swap
        s_mean, s_std, t_mean, t_std = (
            values if len(values) == channels else values * channels
            for values in (
                student.mean,
                student.std,
                teacher.mean,
                teacher.std,
            )
        )
        if not swap and (s_mean, s_std) == (t_mean, t_std):
            return None
        # Values that stay as they are have channels anywhere.
        axes = {
            each.axis
            for each in (student, teacher)
            if each.swap or not each.raw
        }
        if len(axes) > 1:
            raise ValueError(
                "`teacher`: the student's data preprocessor has channels at "
                f"axis {student.axis}, the teacher's at axis {teacher.axis}. "
                'Use one `format_shape` for both.'
            )
        (axis,) = axes
        if swap and channels not in (1, 3):
            raise ValueError(
                'student and teacher read colour channels in opposite order '
                f'(bgr_to_rgb {student.swap} and {teacher.swap}) and have '
                f'{channels} channels. Use one channel order for both.'
            )
        if swap:
            s_mean, s_std = s_mean[::-1], s_std[::-1]
        shape = -1, *[1] * (-1 - axis)
        s_mean, s_std, t_mean, t_std = (
            torch.tensor(values).view(shape)
            for values in (s_mean, s_std, t_mean, t_std)
        )
        return cls(s_std / t_std, (s_mean - t_mean) / t_std, swap, axis)

    def __call__(self, images: Tensor) -> Tensor:
        """Convert images (B, C, H, W) of the student.

        Raises:
            ValueError: If they have another number of channels.
        """
        scale, shift, swap, axis = self
        channels = images.shape[axis]
        if scale.numel() > 1:
            # One channel would become several without a word.
            check_channels(channels, scale.numel())
        # Preprocessors leave the order of any other number as it is.
        if swap and channels == 3:
            images = images.flip(axis)
        return images * scale + shift


def channels_of_images(network: nn.Module) -> list[int]:
    """The channels that the images of a network may have, likeliest first.

    Args:
        network (nn.Module): The network. Its first convolution says it, or
            the mean of its data preprocessor.
    """
    own = Normalization.of(getattr(network, 'data_preprocessor', None))
    mean = own and own.channels
    first = next(
        (m.in_channels for m in network.modules() if type(m) is nn.Conv2d),
        None,
    )
    # Of others than 1 and 3 it may be that images are rearranged before it.
    found = [first, mean, 3] if first in (1, 3) else [mean, first, 3]
    return list(dict.fromkeys(filter(None, found)))


def check_channels(student: int | None, teacher: int | None) -> None:
    """See that the images of both have as many channels; None: not known.

    Raises:
        ValueError: If not.
    """
    if None not in (student, teacher) and student != teacher:
        raise ValueError(channels_differ(student, teacher))


def channels_differ(student: int, teacher: int) -> str:
    """What to say if the images of the two have other numbers of channels."""
    return (
        f"`teacher`: its images have {teacher} channels, the student's "
        f'{student}. Both networks get the same images. Choose a teacher for '
        f'images of {student} channels.'
    )


def describe(preprocessor: nn.Module | None) -> str:
    """What a data preprocessor does to images, in words for the log."""
    found = Normalization.of(preprocessor)
    return str(found or f'{type(preprocessor).__name__} (not known)')


def match_preprocessors(
    student: nn.Module | None,
    teacher: nn.Module | None,
    label: str = 'teacher',
) -> Conversion | None:
    """Find what makes the student's images the teacher's, and log it.

    Args:
        student (nn.Module, optional): The student's data preprocessor.
        teacher (nn.Module, optional): The teacher's.
        label (str): What the log calls the teacher. Defaults to 'teacher'.

    Returns:
        Conversion or None: None where both do the same. Also None, with a
        warning, where it is not known what one of them does.

    Raises:
        ValueError: If there is no conversion.
    """
    found = [Normalization.of(each) for each in (student, teacher)]
    known, same = None not in found, student is teacher
    conversion = None
    if known:
        conversion = Conversion.between(*found)
        same = found[0] == found[1]
    print_log(
        f'Images: the student takes {describe(student)}; the {label} '
        + ('the same' if same else describe(teacher))
        + ('' if conversion is None else "; the teacher's input is converted"),
        'current',
    )
    if conversion is not None and not any(each.raw for each in found):
        widths = sorted(max(each.std) for each in found)
        if widths[1] > 50 * widths[0]:
            print_log(
                'Student and teacher expect images of far apart scales. If '
                'one of them was trained on values from 0 to 1, multiply its '
                '`mean` and `std` by 255: both get images from 0 to 255.',
                'current',
                logging.WARNING,
            )
    if not (known or same):
        keys = ' and '.join(
            f'`{role}.data_preprocessor`'
            for role, each in zip(('student', 'teacher'), found)
            if each is None
        )
        print_log(
            f'It is not known what {keys} does to images. The teacher gets '
            "the student's images as they are. If it expects others, give "
            f'{keys} a type that derives from ImgDataPreprocessor, for '
            f'instance {EXAMPLE}.',
            'current',
            logging.WARNING,
        )
    return conversion


def build_preprocessor(
    given: Mapping, network: nn.Module, scope: str | None, key: str
) -> nn.Module:
    """Build the ``data_preprocessor`` that a teacher is given.

    Args:
        given (Mapping): Its settings. Its type is that of the network's own
            unless it says another, as in the recipes of mmpretrain.
        network (nn.Module): The teacher's network.
        scope (str, optional): The scope of the teacher's config.
        key (str): Where the teacher stands in the config, for messages.

    Raises:
        ValueError: If it cannot be built.
    """
    settings = dict(given)
    own = getattr(network, 'data_preprocessor', None)
    if own is not None:
        settings.setdefault('type', type(own))
    settings.setdefault('_scope_', scope)
    try:
        built = MMENGINE_MODELS.build(settings)
        if not isinstance(built, BaseDataPreprocessor):
            raise TypeError(f'{type(built).__name__} is none')
    except Exception as error:
        raise ValueError(
            f'`{key}.data_preprocessor` is {dict(given)!r}, of which no '
            f'data preprocessor can be built: {error}. Write dict(type=...), '
            f'for instance {EXAMPLE}.'
        ) from error
    return built
