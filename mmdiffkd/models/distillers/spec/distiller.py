"""The keys of a distiller."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationInfo, field_validator, model_validator
from torch import nn

from .base import Spec, check_name, field
from .schedule import ScheduleSpec
from .teacher import ONLY_TEACHER


class DistillerSpec(Spec):
    """Who learns, who teaches, and what is compared."""

    student: Any = field(
        "The student's model configuration: the `model` of its recipe.",
        "Add student=_base_.model, the recipe's `model`.",
    )
    teachers: Any = field(
        'Several teachers by name, each a dict of its keys or a built '
        'module, instead of `teacher`. A teacher of None is left out.',
        'Write teachers=dict(NAME=dict(config=..., checkpoint=...), ...).',
        None,
    )
    teacher: Any = field(
        'The teacher, a dict of its keys or a built module.',
        'Write teacher=dict(config=..., checkpoint=...).',
        None,
        validate_default=True,
    )
    distill: Any = field(
        'The entries by name, each a dict of its keys. An entry of None is '
        "left out. Or the name of a preset, 'diffkd' say, or a dict with "
        '`preset`, changes of its entries and others.',
        'Write a dict of entries, for instance '
        "distill=dict(feature=dict(at='backbone[-1]', "
        "neck=dict(type='DiffKDNeck'), loss=dict(type='MSELoss'))).",
    )
    data_preprocessor: Any = field(
        "The student's, where a recipe keeps it at the top level of its "
        'config.',
        'Write dict(type=...).',
        None,
    )
    input_size: Any = field(
        'Size of the images of the dry run, (height, width). None: the '
        "backbone's `img_size`, else 224 for classifiers and 256 otherwise; "
        'if the student does not run on that, a size that it declares.',
        'Use an integer, or (height, width).',
        None,
    )
    input_shape: Any = field(
        'The whole shape of an image, (channels, height, width), or of a '
        'clip, (frames, channels, height, width), instead of `input_size`. '
        "None: the channels are the student's, else 3.",
        'Use (channels, height, width).',
        None,
    )
    task_weight: float = field(
        "Multiplies the losses of the student's own task. 0: the student runs "
        'as far as its taps and needs no annotations.',
        'Use a number, 0 (without labels) or more.',
        1.0,
        ge=0,
    )
    task_schedule: ScheduleSpec | None = field(
        'How `task_weight` changes over a run.',
        'Write for instance dict(warmup=5, stop=80).',
        None,
    )

    @model_validator(mode='before')
    @classmethod
    def _is_not_merged(cls, given: Mapping) -> Mapping:
        student = given.get('student')
        unknown = given.keys() - cls.model_fields.keys()
        if isinstance(student, Mapping) and (both := unknown & student.keys()):
            names = ', '.join(map(repr, sorted(both)))
            raise ValueError(
                f'`model` has keys of the student: {names}. '
                'The recipe was merged into the distiller. Write '
                "model=dict(_delete_=True, type='mmdiffkd.Distiller', ...)."
            )
        return given

    @field_validator('student')
    @classmethod
    def _is_model(cls, student: object) -> object:
        if isinstance(student, nn.Module):
            return student
        if not isinstance(student, Mapping) or 'type' not in student:
            what = _shown(student)
            if isinstance(student, Mapping):
                names = ', '.join(map(repr, student))
                what = f'a dict of {names}, without `type`'
            raise ValueError(
                f'`student` is {what}. Write the `model` of a recipe, '
                'for instance student=_base_.model, or dict(type=..., ...).'
            )
        return student

    @field_validator('distill')
    @classmethod
    def _is_dict(cls, given: object, info: ValidationInfo) -> object:
        if not isinstance(given, Mapping | str):
            raise cls._wrong(info.field_name, _shown(given))
        return given

    @field_validator('teachers')
    @classmethod
    def _are_named(cls, given: object) -> object:
        if given is None:
            return None
        if not isinstance(given, Mapping):
            raise cls._wrong('teachers', _shown(given))
        for name, teacher in given.items():
            check_name('teachers', 'a teacher', name, "'dino'")
            if not isinstance(teacher, Mapping | nn.Module | None):
                raise ValueError(
                    f'`teachers.{name}` is {_shown(teacher)}. Write '
                    'dict(config=..., checkpoint=...).'
                )
        if not any(teacher is not None for teacher in given.values()):
            raise cls._wrong('teachers', _shown(given))
        return given

    @field_validator('teacher')
    @classmethod
    def _is_the_only_one(cls, given: object, info: ValidationInfo) -> object:
        several = info.data.get('teachers', ...) is not None
        if several and given is not None:
            raise ValueError(
                f'`{info.context["key"]}` has `teacher` and also `teachers`. '
                'Give all of them in `teachers`, by name, and leave the '
                'other out.'
            )
        if several or isinstance(given, Mapping | nn.Module):
            return given
        if given is None:
            raise cls._lacks('teacher', info.context['key'])
        if isinstance(given, list | tuple):
            raise ValueError(
                f'`teacher` is {_shown(given)}. Several teachers have names. '
                + cls._cure('teachers')
            )
        raise cls._wrong('teacher', _shown(given))

    @property
    def teachers_by_name(self) -> dict[str, Mapping | nn.Module]:
        """All teachers, without those of None."""
        given = self.teachers or {ONLY_TEACHER: self.teacher}
        return {name: each for name, each in given.items() if each is not None}


def _shown(value: object) -> str:
    """A value for a message, by its type where it is long."""
    text = repr(value)
    if isinstance(value, list | tuple):
        return f'a {type(value).__name__} of {len(value)}'
    return text if len(text) < 80 else f'a {type(value).__name__}'
