"""A pass of the teacher over the training data, for losses that ask for it."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from mmengine.logging import print_log
from torch import Tensor

from .entry import Entry
from .teacher import FrozenTeacher
from .teachers import run_teachers


def prepare_losses(
    entry: Entry,
    batches: Callable[[], Iterable[Tensor]],
    teachers: Mapping[str, FrozenTeacher],
) -> None:
    """Show the teacher's tensors to the losses of an entry that ask for it.

    Args:
        entry (Entry): The entry.
        batches (Callable): Gives the training set's inputs, batch by batch,
            normalised, each time it is called.
        teachers (Mapping[str, FrozenTeacher]): The teachers by name.

    Raises:
        ValueError: If no pass of the teacher yields what a loss compares.
    """
    for level, loss in enumerate(entry.losses):
        if loss.prepared:
            continue
        _check(entry, level)
        print_log(
            f'distill.{entry.name}: one pass of the teacher over the '
            f'training data, for {type(loss).__name__}',
            'current',
        )
        loss.prepare(_level_of(entry, level, batches(), teachers))


def _level_of(
    entry: Entry,
    level: int,
    batches: Iterable[Tensor],
    teachers: Mapping[str, FrozenTeacher],
) -> Iterator[Tensor]:
    for inputs in batches:
        if not isinstance(inputs, Tensor):
            raise ValueError(
                f'`distill.{entry.name}.loss`: '
                f'{type(entry.losses[level]).__name__} asks for a pass of the '
                'teacher over the training data, whose inputs are a '
                f'{type(inputs).__name__} of images. Choose an option of the '
                'loss that needs no pass, or another loss.'
            )
        tensors = run_teachers(teachers, [entry], inputs, {})
        tensor = entry.read_teachers(tensors)[level]
        yield entry.levels[level].arrange(1, tensor, inputs.shape[-2:])


def _check(entry: Entry, level: int) -> None:
    if entry.box_heads is not None:
        reason = (
            'asks for a pass of the teacher over the training data, in which '
            'no student samples boxes for the taps in the RoI head'
        )
    elif level >= len(entry.shapes) or any(n.to_classes for n in entry.necks):
        reason = (
            'asks for a pass over the training data, but its neck hands on '
            'what no tap yields'
        )
    else:
        return
    raise ValueError(
        f'`distill.{entry.name}.loss`: {type(entry.losses[level]).__name__} '
        f'{reason}. Choose an option of the loss that needs no pass.'
    )
