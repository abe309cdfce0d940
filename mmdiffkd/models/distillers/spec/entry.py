"""The keys of the entries of ``distill``."""

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import (
    BeforeValidator,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from mmdiffkd.utils.naming import did_you_mean

from .base import Spec, check_name, field
from .part import PartSpec, read_part
from .schedule import ScheduleSpec
from .teacher import ONLY_TEACHER

_Part = Annotated[
    PartSpec | None,
    BeforeValidator(read_part),
    WithJsonSchema({'type': 'dict'}),
]
_Names = Annotated[
    tuple[str, ...] | None,
    BeforeValidator(
        lambda given: (
            (given,)
            if isinstance(given, str)
            else tuple(given)
            if isinstance(given, Sequence) and given
            else given
        )
    ),
    WithJsonSchema({'type': 'str or list of str'}),
]
_Axes = Literal['NCHW', 'NHWC', 'NLC', 'NCL', 'NC']
_LAYOUT = "Use 'NCHW', 'NHWC', 'NLC', 'NCL' or 'NC'."
_PREFIX = 'Use a number of tokens, 0 or more.'
_TEACHER = (
    "Write the name of a teacher, for instance 'dino', or a list of names."
)
_TAP = "Write a tap, for instance 'backbone[-1]', or a list of taps."


class EntrySpec(Spec):
    """What is compared, how, and with which weight."""

    at: _Names = field(
        'What to read of both networks: a tap, or a list of taps, one a '
        'level.',
        _TAP,
        None,
    )
    student_at: _Names = field('What to read of the student.', _TAP, None)
    teacher_at: _Names = field('What to read of the teacher.', _TAP, None)
    teacher: _Names = field(
        'Which of `teachers` teaches: a name, or a list of names, of whose '
        'tensors the mean is compared. None: the only one.',
        _TEACHER,
        None,
    )
    layout: _Axes | None = field(
        "What the axes of both tensors mean: 'NCHW' and 'NHWC' are maps, "
        "'NLC' and 'NCL' tokens of the image's grid, 'NC' vectors (with more "
        'than two axes each element of all but the last is a sample of its '
        'own). None: what is certain is recognised, the rest is asked for.',
        _LAYOUT,
        None,
    )
    student_layout: _Axes | None = field(
        "The same of the student's tensor alone.", _LAYOUT, None
    )
    teacher_layout: _Axes | None = field(
        "The same of the teacher's tensor alone.", _LAYOUT, None
    )
    prefix_tokens: int | None = field(
        'How many leading tokens (of the class, registers) belong to no '
        'position and are dropped. None: recognised.',
        _PREFIX,
        None,
        ge=0,
    )
    student_prefix_tokens: int | None = field(
        "The same of the student's tokens alone.", _PREFIX, None, ge=0
    )
    teacher_prefix_tokens: int | None = field(
        "The same of the teacher's tokens alone.", _PREFIX, None, ge=0
    )
    activation: Literal['softmax', 'sigmoid'] | None = field(
        'What makes probabilities of the logits that are compared. None: '
        'recognised where the head is known.',
        "Use 'softmax' or 'sigmoid'.",
        None,
    )
    neck: _Part = field(
        'The distillation neck, dict(type=...). None: the tensors are '
        'compared as they are.',
        "Write dict(type=...), for instance dict(type='DiffKDNeck').",
        None,
    )
    loss: _Part = field(
        'The distance, dict(type=...), with its own loss_weight.',
        "Add for instance loss=dict(type='MSELoss').",
    )
    weight: float = field(
        'Multiplies everything of the entry. 0 switches it off.',
        'Use a number, 0 (off) or more.',
        1.0,
        ge=0,
    )
    schedule: ScheduleSpec | None = field(
        'How the weight changes over a run.',
        'Write for instance dict(warmup=5, stop=80).',
        None,
    )
    shared: bool = field(
        'One neck and one loss for all levels, rather than one a level.',
        'Use True or False.',
        False,
    )
    teacher_head: str | None = field(
        'The module of the teacher that a neck or a loss asks for by the '
        'argument teacher_head (the module) or teacher_logits (what it '
        'returned).',
        'Name a module of the teacher, without an index, for instance '
        "'head.fc'.",
        None,
    )

    @field_validator('loss', mode='before')
    @classmethod
    def _has_loss(cls, given: object, info: ValidationInfo) -> object:
        if given is None:
            raise cls._lacks('loss', info.context['key'])
        return given

    @field_validator('teacher_head')
    @classmethod
    def _is_path(cls, head: str | None, info: ValidationInfo) -> str | None:
        if head is not None and {*'[@'} & {*head}:
            raise cls._wrong('teacher_head', repr(head), info.context['key'])
        return head

    @model_validator(mode='after')
    def _complete(self, info: ValidationInfo) -> Self:
        key = info.context['key']
        for name in ('at', 'layout', 'prefix_tokens'):
            both = getattr(self, name)
            sides = [f'student_{name}', f'teacher_{name}']
            if both is None:
                continue
            if any(getattr(self, side) is not None for side in sides):
                raise ValueError(
                    f'`{key}` has `{name}` and also `{sides[0]}` or '
                    f'`{sides[1]}`. Give `{name}` for both, or one of each.'
                )
            for side in sides:
                setattr(self, side, both)
        for role, taps in (
            ('student', self.student_at),
            ('teacher', self.teacher_at),
        ):
            if not taps:
                raise ValueError(
                    f'`{key}` does not say what to read of the {role}. Add '
                    f'`at` (for both) or `{role}_at`, for instance '
                    "'backbone[-1]'."
                )
        self.schedule = self.schedule or ScheduleSpec()
        return self

    @property
    def compares_logits(self) -> bool:
        """Whether what is tapped are logits, of the same classes or bins."""
        loss, neck = self.loss.cls, self.neck
        over = loss.over_classes or loss.activation is not None
        return over and not (neck is not None and neck.cls.to_classes)

    @property
    def texts(self) -> tuple[str, str]:
        """The student's and the teacher's taps, for messages."""
        return tuple(
            f"the {role}'s {' + '.join(map(repr, taps))}"
            for role, taps in (
                ('student', self.student_at),
                ('teacher', self.teacher_at),
            )
        )


def read_entry(
    name: str, given: object, teachers: Collection[str] = (ONLY_TEACHER,)
) -> EntrySpec:
    """Read an entry of ``distill``.

    Args:
        name (str): Its name.
        given (Mapping): Its keys and values.
        teachers (Collection[str]): The names of the distiller's teachers.
            Defaults to one without a name of its own.

    Returns:
        EntrySpec: Its keys; ``teacher`` has the names of its teachers.

    Raises:
        ValueError: If the name misleads or is reserved, a key is unknown,
            missing or wrong, or it is not certain which teacher is meant.
    """
    check_name('distill', 'an entry', name, "'feature' or 'logits'", ('step',))
    if 'loss' in name:
        raise ValueError(
            f'`distill` has an entry named {name!r}; MMEngine adds up every '
            'logged value whose name contains "loss". Choose another name, '
            "for instance what is compared: 'feature', 'logits'."
        )
    if not isinstance(given, Mapping):
        raise ValueError(
            f'`distill.{name}` is {given!r}. Write dict(at=..., loss=...).'
        )
    spec = EntrySpec.read(given, f'distill.{name}')
    spec.teacher = _teachers_of(f'distill.{name}', spec, teachers)
    return spec


def _teachers_of(
    key: str, spec: EntrySpec, teachers: Collection[str]
) -> tuple[str, ...]:
    """The names of the teachers of an entry."""
    if spec.teacher is None:
        if len(teachers) == 1:
            return tuple(teachers)
        raise ValueError(
            f'`{key}` does not say which teacher it reads. There are '
            f'{", ".join(map(repr, teachers))}. Add for instance '
            f'teacher={next(iter(teachers))!r}, or a list of names, whose '
            'mean is compared.'
        )
    for name in spec.teacher:
        if name not in teachers:
            raise ValueError(
                f'`{key}.teacher` is {name!r}, but there is no such teacher. '
                + did_you_mean(name, teachers)
            )
    if len({*spec.teacher}) < len(spec.teacher):
        raise ValueError(
            f'`{key}.teacher` is {list(spec.teacher)}, which names one twice. '
            'Name each once.'
        )
    if len(spec.teacher) > 1 and spec.teacher_head is not None:
        raise ValueError(
            f'`{key}` has `teacher_head`, a module of one teacher, and as '
            f'`teacher` {list(spec.teacher)}. Name one teacher, or use a '
            'neck and a loss that ask for no head.'
        )
    return spec.teacher


def read_entries(
    distill: Mapping, teachers: Collection[str] = (ONLY_TEACHER,)
) -> dict[str, EntrySpec]:
    """Read all entries of ``distill``, without those of None.

    Args:
        distill (Mapping): The entries by name.
        teachers (Collection[str]): See :func:`read_entry`.

    Raises:
        ValueError: See :func:`read_entry`. Where an entry is not whole,
            the message names the others, of which one may have been meant.
    """
    specs = {}
    for name, given in distill.items():
        if given is None:
            continue
        try:
            specs[name] = read_entry(name, given, teachers)
        except ValueError as error:
            others = [n for n, e in distill.items() if _is_whole(e)]
            if not others or name in others or not isinstance(given, Mapping):
                raise
            raise ValueError(
                f'{error} To change another entry, use its name. '
                + did_you_mean(name, others)
            ) from None
    return specs


def _is_whole(entry: object) -> bool:
    return isinstance(entry, Mapping) and any(
        {*sides, 'loss'} <= entry.keys()
        for sides in (('at',), ('student_at', 'teacher_at'))
    )
