"""A student that begins with parts of its teacher."""

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmdiffkd.utils.naming import did_you_mean


class Match(NamedTuple):
    """What a student takes over below one path.

    Attributes:
        taken (list[str]): Tensors of equal name and shape.
        skipped (list[str]): The student's and the teacher's other tensors,
            each with the reason.
    """

    taken: list[str]
    skipped: list[str]


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(t.shape) for name, t in module.state_dict().items()}


def match_tensors(
    paths: Sequence[str],
    student: nn.Module,
    teacher: nn.Module,
    key: str = 'teacher',
) -> dict[str, Match]:
    """Work out which tensors of a teacher fit a student.

    Args:
        paths (Sequence[str]): Paths of modules that both have.
        student (nn.Module): The student.
        teacher (nn.Module): The teacher, before anything is folded in it.
        key (str): Where the teacher stands in the config, for messages.
            Defaults to 'teacher'.

    Returns:
        dict[str, Match]: By path.

    Raises:
        ValueError: If ``paths`` is no list of paths, one of them is missing
            in either network, or nothing fits below it.
    """
    if (
        isinstance(paths, str)
        or not isinstance(paths, Sequence)
        or not all(isinstance(path, str) for path in paths)
    ):
        raise ValueError(
            f'`{key}.inherit` is {paths!r}. Write a tuple of module paths, '
            "for instance ('neck', 'bbox_head')."
        )
    found = {}
    for path in paths:
        for role, network in (('student', student), ('teacher', teacher)):
            modules = dict(network.named_modules())
            if path not in modules:
                raise ValueError(
                    f'`{key}.inherit` names {path!r}, which the {role} '
                    f'{type(network).__name__} does not have. '
                    + did_you_mean(path, filter(None, modules))
                )
        student_shapes, teacher_shapes = (
            _shapes(network.get_submodule(path))
            for network in (student, teacher)
        )
        taken = [
            n
            for n in student_shapes
            if teacher_shapes.get(n) == student_shapes[n]
        ]
        skipped = [
            f'{name} ({student_shapes.get(name, "missing")} in the student, '
            f'{teacher_shapes.get(name, "missing")} in the teacher)'
            for name in dict.fromkeys([*student_shapes, *teacher_shapes])
            if student_shapes.get(name) != teacher_shapes.get(name)
        ]
        if not taken:
            raise ValueError(
                f'`{key}.inherit` names {path!r}, but nothing below it has '
                'one name and one shape in student and teacher: '
                + ('; '.join(skipped[:3]) or 'it holds no tensors')
                + '. Leave it out.'
            )
        found[path] = Match(taken, skipped)
    return found


def check_paths(paths: Mapping[str, Sequence[str]]) -> None:
    """Refuse teachers of which two would fill one part of the student.

    Args:
        paths (Mapping): The paths of ``inherit``, by where the teacher
            stands in the config.

    Raises:
        ValueError: If there are such.
    """
    given = [(key, path) for key, each in paths.items() for path in each]
    for (key, path), (other, inner) in permutations(given, 2):
        if key != other and f'{inner}.'.startswith(f'{path}.'):
            raise ValueError(
                f'`{key}.inherit` names {path!r} and `{other}.inherit` '
                f'{inner!r}, so that it is not certain whose values the '
                'student begins with. Leave one of them out.'
            )


@torch.no_grad()
def inherit(
    student: nn.Module,
    matches: Mapping[str, Match],
    tensors: Mapping[str, Mapping[str, Tensor]],
    label: str = 'teacher',
) -> None:
    """Copy a teacher's tensors into a student and log what was left out.

    Args:
        student (nn.Module): The student.
        matches (Mapping[str, Match]): What fits, by path.
        tensors (Mapping[str, Mapping[str, Tensor]]): The teacher's tensors
            by path and name.
        label (str): What the log calls the teacher. Defaults to 'teacher'.
    """
    for path, (taken, skipped) in matches.items():
        own = student.get_submodule(path).state_dict()
        for name in taken:
            own[name].copy_(tensors[path][name])
        print_log(
            f'The student inherits {path!r} from the {label}: '
            f'{len(taken)} of {len(own)} tensors'
            + (f'; skipped: {"; ".join(skipped)}' if skipped else ''),
            'current',
        )
