"""The teachers of a distiller: building them, and running one by one."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence

from mmengine.logging import print_log
from torch import Tensor, nn

from .entry import Entry
from .inheritance import check_paths
from .nested import check_apart
from .rois import Sampled, pair_box_heads
from .spec import ONLY_TEACHER, EntrySpec, TeacherSpec
from .teacher import FrozenTeacher


def build_teachers(
    given: Mapping[str, Mapping | nn.Module], student: nn.Module
) -> dict[str, FrozenTeacher]:
    """Build all teachers of a distiller.

    Args:
        given (Mapping): By name, the keys of each or a built network.
        student (nn.Module): The student.

    Raises:
        ValueError: If a key is missing, unknown or wrong, or a built network
            has parameters of the student.
    """
    built = {}
    for name, teacher in given.items():
        key = ONLY_TEACHER
        if list(given) != [ONLY_TEACHER]:
            key = f'teachers.{name}'
        if isinstance(teacher, nn.Module):
            teacher = dict(module=teacher)
        spec = TeacherSpec.read(teacher, key)
        if isinstance(spec.module, nn.Module):
            check_apart(student, spec.module, key)
        built[name] = FrozenTeacher(spec=spec, key=key)
    return built


def match_teachers(
    teachers: Mapping[str, FrozenTeacher],
    student: nn.Module,
    preprocessor: nn.Module | None,
) -> None:
    """Prepare all teachers for a student and its images.

    Args:
        teachers (Mapping[str, FrozenTeacher]): The teachers by name.
        student (nn.Module): The student.
        preprocessor (nn.Module, optional): What normalises its images.

    Raises:
        ValueError: See :meth:`~.teacher.FrozenTeacher.match_input` and
            :meth:`~.teacher.FrozenTeacher.match_student`; or if two teachers
            would fill one part of the student.
    """
    for teacher in teachers.values():
        with teacher.named_in_errors():
            teacher.match_input(preprocessor)
            teacher.match_student(student)
    check_paths({t.key: t.spec.inherit for t in teachers.values()})


def attach_teachers(
    teachers: Mapping[str, FrozenTeacher],
    specs: Collection[EntrySpec],
    input_shape: tuple[int, ...],
) -> None:
    """Tap all teachers, and see what the taps yield.

    Args:
        teachers (Mapping[str, FrozenTeacher]): The teachers by name.
        specs (Collection[EntrySpec]): The keys of the entries.
        input_shape (tuple[int, ...]): The shape of the student's images.

    Raises:
        ValueError: See :meth:`~.teacher.FrozenTeacher.attach`.
    """
    for name, teacher in teachers.items():
        taps = _taps_of(name, specs)
        if specs and not taps:
            print_log(
                f'No entry reads the {teacher.label}. It takes memory and '
                'does not run.',
                'current',
                logging.WARNING,
            )
        with teacher.named_in_errors():
            teacher.attach(taps, input_shape)


def run_teachers(
    teachers: Mapping[str, FrozenTeacher],
    entries: Sequence[Entry],
    inputs: Tensor,
    sampled: Mapping[str, Sampled],
    data_samples: list | None = None,
) -> dict[str, dict[str, list[Tensor]]]:
    """What the taps of some entries yield, by teacher and tap.

    The teachers run one after the other: what one of them computes is freed,
    but for what its taps yield, before the next begins.

    Args:
        teachers (Mapping[str, FrozenTeacher]): The teachers by name.
        entries (Sequence[Entry]): The entries.
        inputs (Tensor): The student's normalised images (B, C, H, W).
        sampled (Mapping[str, Sampled]): The boxes that the student sampled,
            by its box head.
        data_samples (list, optional): The samples of the images. Defaults to
            None.
    """
    found = {}
    for name, teacher in teachers.items():
        taps = _taps_of(name, [entry.spec for entry in entries])
        boxes = {
            head: sampled[student].boxes
            for head, student in box_heads(name, entries).items()
            if student in sampled
        }
        if taps:
            found[name] = teacher(inputs, taps, boxes, data_samples)
    return found


def box_heads(name: str, entries: Iterable[Entry]) -> dict[str, str]:
    """On which of the student's boxes each box head of a teacher runs.

    Args:
        name (str): The teacher.
        entries (Iterable[Entry]): The entries.

    Returns:
        dict[str, str]: The student's box head by the teacher's.

    Raises:
        ValueError: If one head would have to run on two sets of boxes.
    """
    return pair_box_heads(
        {e.name: e.box_heads for e in entries if name in e.teachers}
    )


def _taps_of(name: str, specs: Iterable[EntrySpec]) -> list[str]:
    """The taps at which entries read a teacher, with its head."""
    return list(
        dict.fromkeys(
            tap
            for spec in specs
            if name in spec.teacher
            for tap in (*spec.teacher_at, spec.teacher_head)
            if tap is not None
        )
    )
