"""The keys of a distiller, of its entries and of its teachers, as data.

A config is read here and nowhere else: what comes out has been checked,
except for what depends on the networks. The fields' descriptions make the
reference pages.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from torch import nn

from mmdiffkd.utils.naming import did_you_mean

from .normalization import EXAMPLE
from .part_spec import PartSpec, read_part

_NAME = re.compile('[a-z][a-z0-9_]*')
#: What a teacher that needs no name is called.
ONLY_TEACHER = 'teacher'


def _key(description: str, cure: str, default: Any = ..., **limits) -> Any:
    """A field whose wrong or missing value is answered with a cure."""
    return Field(
        default,
        description=description,
        json_schema_extra={'cure': cure},
        **limits,
    )


class Spec(BaseModel):
    """Keys of a config, each with its type, default, description and cure."""

    model_config = ConfigDict(
        extra='forbid',
        strict=True,
        allow_inf_nan=False,
        arbitrary_types_allowed=True,
    )

    @classmethod
    def read(cls, given: Mapping, key: str) -> Self:
        """Read a part of a config.

        Args:
            given (Mapping): Its keys and values.
            key (str): Where it stands, for messages, such as
                ``'distill.feature'``.

        Raises:
            ValueError: Names each key that is wrong, its value and the cure,
                a line a key.
        """
        try:
            return cls.model_validate(dict(given), context={'key': key})
        except ValidationError as error:
            lines = {}
            for found in error.errors():
                lines.setdefault(*cls._explain(found, key))
            raise ValueError('\n'.join(lines.values())) from None

    @classmethod
    def _wrong(cls, name: str, shown: str, key: str = '') -> ValueError:
        cure = cls.model_fields[name].json_schema_extra['cure']
        where = f'{key}.{name}' if key else name
        return ValueError(f'`{where}` is {shown}. {cure}')

    @classmethod
    def _explain(cls, found: dict, key: str) -> tuple[str, str]:
        """One of pydantic's errors: the wrong key, and words with the cure."""
        name, *rest = found['loc'] or ('',)
        field = cls.model_fields.get(name)
        if rest and field is not None:
            inner = next(iter(get_args(field.annotation)), None)
            if isinstance(inner, type) and issubclass(inner, Spec):
                found = {**found, 'loc': rest}
                return inner._explain(found, f'{key}.{name}')
        where = f'{key}.{name}'
        if found['type'] == 'value_error':
            return where, str(found['ctx']['error'])
        if field is None:
            return where, (
                f'`{key}` has an unknown key {name!r}. '
                + did_you_mean(name, cls.model_fields)
            )
        cure = field.json_schema_extra['cure']
        if found['type'] == 'missing':
            return where, f'`{key}` has no `{name}`. {cure}'
        return where, f'`{where}` is {found["input"]!r}. {cure}'


class ScheduleSpec(Spec):
    """How the weight of an entry or of the task changes over a run."""

    warmup: int = _key(
        'Over how many epochs (or iterations) the weight grows linearly; the '
        'n-th, counted from 1, has the factor min(n / warmup, 1). 0: none.',
        'Use a number of epochs (or iterations), 0 or more.',
        0,
        ge=0,
    )
    stop: int | None = _key(
        'After how many epochs (or iterations) the weight is 0. None: never.',
        'Use a number of epochs (or iterations), 0 or more.',
        None,
        ge=0,
    )
    by_epoch: bool = _key(
        'Count epochs rather than iterations.', 'Use True or False.', True
    )

    @property
    def constant(self) -> bool:
        """Whether the factor is 1 all the time."""
        return self.warmup <= 1 and self.stop is None

    def factor(self, epoch: int, iteration: int) -> float:
        """The factor at an epoch and iteration, both counted from 0."""
        done = epoch if self.by_epoch else iteration
        if self.stop is not None and done >= self.stop:
            return 0.0
        return min((done + 1) / self.warmup, 1.0) if self.warmup else 1.0


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
_Size = Annotated[
    tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]] | None,
    BeforeValidator(
        lambda given: (
            (given, given)
            if type(given) is int
            else tuple(given)
            if isinstance(given, list)
            else given
        )
    ),
    WithJsonSchema({'type': 'int or (height, width)'}),
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

    at: _Names = _key(
        'What to read of both networks: a tap, or a list of taps, one a '
        'level.',
        _TAP,
        None,
    )
    student_at: _Names = _key('What to read of the student.', _TAP, None)
    teacher_at: _Names = _key('What to read of the teacher.', _TAP, None)
    teacher: _Names = _key(
        'Which of `teachers` teaches: a name, or a list of names, of whose '
        'tensors the mean is compared. None: the only one.',
        _TEACHER,
        None,
    )
    layout: _Axes | None = _key(
        "What the axes of both tensors mean: 'NCHW' and 'NHWC' are maps, "
        "'NLC' and 'NCL' tokens of the image's grid, 'NC' vectors (with more "
        'than two axes each element of all but the last is a sample of its '
        'own). None: what is certain is recognised, the rest is asked for.',
        _LAYOUT,
        None,
    )
    student_layout: _Axes | None = _key(
        "The same of the student's tensor alone.", _LAYOUT, None
    )
    teacher_layout: _Axes | None = _key(
        "The same of the teacher's tensor alone.", _LAYOUT, None
    )
    prefix_tokens: int | None = _key(
        'How many leading tokens (of the class, registers) belong to no '
        'position and are dropped. None: recognised.',
        _PREFIX,
        None,
        ge=0,
    )
    student_prefix_tokens: int | None = _key(
        "The same of the student's tokens alone.", _PREFIX, None, ge=0
    )
    teacher_prefix_tokens: int | None = _key(
        "The same of the teacher's tokens alone.", _PREFIX, None, ge=0
    )
    activation: Literal['softmax', 'sigmoid'] | None = _key(
        'What makes probabilities of the logits that are compared. None: '
        'recognised where the head is known.',
        "Use 'softmax' or 'sigmoid'.",
        None,
    )
    neck: _Part = _key(
        'The distillation neck, dict(type=...). None: the tensors are '
        'compared as they are.',
        "Write dict(type=...), for instance dict(type='DiffKDNeck').",
        None,
    )
    loss: _Part = _key(
        'The distance, dict(type=...), with its own loss_weight.',
        "Add for instance loss=dict(type='MSELoss').",
    )
    weight: float = _key(
        'Multiplies everything of the entry. 0 switches it off.',
        'Use a number, 0 (off) or more.',
        1.0,
        ge=0,
    )
    schedule: ScheduleSpec | None = _key(
        'How the weight changes over a run.',
        'Write for instance dict(warmup=5, stop=80).',
        None,
    )
    shared: bool = _key(
        'One neck and one loss for all levels, rather than one a level.',
        'Use True or False.',
        False,
    )
    teacher_head: str | None = _key(
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
            key, cure = info.context['key'], cls.model_fields['loss']
            cure = cure.json_schema_extra['cure']
            raise ValueError(f'`{key}` has no `loss`. {cure}')
        return given

    @field_validator('teacher_head')
    @classmethod
    def _is_path(cls, head: str | None, info: ValidationInfo) -> str | None:
        if head is not None and {*'[@'} & {*head}:
            cure = cls.model_fields['teacher_head'].json_schema_extra['cure']
            key = info.context['key']
            raise ValueError(f'`{key}.teacher_head` is {head!r}. {cure}')
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


def _check_name(key: str, what: str, name: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f'`{key}` has {what} named {name!r}. Use lower-case letters, '
            'digits and underscores, beginning with a letter.'
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
    _check_name('distill', 'an entry', name)
    if 'loss' in name:
        raise ValueError(
            f'`distill` has an entry named {name!r}; MMEngine adds up every '
            'logged value whose name contains "loss". Choose another name, '
            "for instance what is compared: 'feature', 'logits'."
        )
    if name == 'step' or hasattr(nn.ModuleDict(), name):
        raise ValueError(
            f'`distill` has an entry named {name!r}, which is reserved. '
            "Choose another name, for instance 'feature' or 'logits'."
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


class TeacherSpec(Spec):
    """Which network teaches, and how it runs."""

    module: Any = _key(
        'A network that no config describes, instead of `config`: what '
        'returns it, a function, a class or a classmethod by its path '
        "('timm.create_model'), or in Python the built module itself.",
        'Write the path of something that returns a network, for instance '
        "'timm.create_model', 'torchvision.models.resnet50' or "
        "'transformers.AutoModel.from_pretrained'.",
        None,
    )
    kwargs: Any = _key(
        'The keyword arguments of `module`. None: none.',
        "Write a dict, for instance dict(model_name='resnet50').",
        None,
    )
    config: Any = _key(
        "The teacher's whole config: a path (from the current directory, or "
        'beside the config file that is read), a package::name, or the '
        "config itself. Of a distiller's it is the student that teaches.",
        "Add teacher=dict(config=...), a path, a 'package::name' or the "
        'config itself.',
        None,
        validate_default=True,
    )
    checkpoint: str | Path | None = _key(
        'Its weights, a file of torch or safetensors (looked for as config '
        "is), or an https URL: a plain model's, an MMEngine run's, or a "
        "distiller's checkpoint. None means a random teacher, on purpose, or "
        'the weights with which `module` builds it; it has to be said.',
        'Add teacher=dict(checkpoint=...), a file or an https URL; None for '
        'a random teacher, if that is what you want.',
    )
    data_preprocessor: Any = _key(
        'What normalises its images, dict(type=...), instead of the '
        "`data_preprocessor` of its config. None: the config's, or what the "
        "library of `module` says; if there is none, the student's.",
        f'Write dict(type=...), for instance {EXAMPLE}.',
        None,
    )
    input_size: _Size = _key(
        "Height and width to which the student's images are resized for the "
        "teacher; an integer for both. None: the student's.",
        'Use a positive integer, or (height, width).',
        None,
    )
    strict: bool = _key(
        'Refuse missing and unexpected keys of the checkpoint.',
        'Use True or False.',
        True,
    )
    trusted: bool = _key(
        'Unpickle anything in the checkpoint, which runs code from it.',
        'Use True or False.',
        False,
    )
    inherit: Any = _key(
        "Paths of modules below which the student begins with the teacher's "
        "values where names and shapes agree, ('neck', 'bbox_head') say.",
        'Write a tuple of module paths.',
        (),
    )
    fold_batch_norm: bool = _key(
        'Fold batch norms into the convolutions before them; never one with '
        'a tap on it. A tap that differs by more than 1e-4 of its norm stops '
        'the run.',
        'Use True or False.',
        False,
    )
    channels_last: bool = _key(
        "Keep the channels of an image's position side by side in memory, "
        'which convolutions prefer.',
        'Use True or False.',
        False,
    )
    dtype: Literal['bfloat16', 'float16'] | None = _key(
        "'bfloat16' or 'float16': run under autocast to this type, whatever "
        "the student runs in. Tapped tensors are handed on in the input's "
        'type.',
        "Use 'bfloat16', 'float16', or None for the student's.",
        None,
    )
    compile: bool = _key(
        'Compile the forward pass by torch.compile.',
        'Use True or False.',
        False,
    )

    @model_validator(mode='before')
    @classmethod
    def _built_with_weights(cls, given: Mapping) -> Mapping:
        if isinstance(given.get('module'), nn.Module):
            return {'checkpoint': None, **given}
        return given

    @field_validator('module')
    @classmethod
    def _returns_a_network(cls, given: object, info: ValidationInfo) -> object:
        key = info.context['key']
        if not (given is None or isinstance(given, str) or callable(given)):
            raise cls._wrong('module', repr(given), key)
        return given

    @field_validator('kwargs')
    @classmethod
    def _of_the_module(cls, given: object, info: ValidationInfo) -> object:
        if given is None:
            return given
        module, key = info.data.get('module'), info.context['key']
        if not isinstance(given, Mapping) or not all(
            isinstance(name, str) for name in given
        ):
            raise cls._wrong('kwargs', repr(given), key)
        if module is None or isinstance(module, nn.Module):
            what = 'built already' if module is not None else 'not there'
            raise ValueError(
                f'`{key}.kwargs` belongs to `{key}.module`, which is {what}. '
                'Leave it out.'
            )
        return given

    @field_validator('config')
    @classmethod
    def _is_one_of_two(cls, given: object, info: ValidationInfo) -> object:
        key, module = info.context['key'], info.data.get('module', ...)
        if given is None and module is None:
            cure = cls.model_fields['config'].json_schema_extra['cure']
            raise ValueError(
                f'`{key}` has no `config`. {cure} A network of another '
                'library is a `module` instead.'
            )
        if given is not None and module not in (None, ...):
            raise ValueError(
                f'`{key}` has `config` and also `module`. Leave one out; on '
                f'the command line by `model.{key}.config=None`.'
            )
        return given

    @field_validator('data_preprocessor')
    @classmethod
    def _is_dict(cls, given: object, info: ValidationInfo) -> object:
        key = info.context['key']
        if given is not None and not isinstance(given, Mapping):
            raise cls._wrong('data_preprocessor', repr(given), key)
        return given


class DistillerSpec(Spec):
    """Who learns, who teaches, and what is compared."""

    student: Any = _key(
        "The student's model configuration: the `model` of its recipe.",
        "Add student=_base_.model, the recipe's `model`.",
    )
    teachers: Any = _key(
        'Several teachers by name, each a dict of its keys or a built '
        'module, instead of `teacher`. A teacher of None is left out.',
        'Write teachers=dict(NAME=dict(config=..., checkpoint=...), ...).',
        None,
    )
    teacher: Any = _key(
        'The teacher, a dict of its keys or a built module.',
        'Write teacher=dict(config=..., checkpoint=...).',
        None,
        validate_default=True,
    )
    distill: Any = _key(
        'The entries by name, each a dict of its keys. An entry of None is '
        "left out. Or the name of a preset, 'diffkd' say, or a dict with "
        '`preset`, changes of its entries and others.',
        'Write a dict of entries, for instance '
        "distill=dict(feature=dict(at='backbone[-1]', "
        "neck=dict(type='DiffKDNeck'), loss=dict(type='MSELoss'))).",
    )
    data_preprocessor: Any = _key(
        "The student's, where a recipe keeps it at the top level of its "
        'config.',
        'Write dict(type=...).',
        None,
    )
    input_size: Any = _key(
        'Size of the images of the dry run, (height, width). None: the '
        "backbone's `img_size`, else 224 for classifiers and 256 otherwise; "
        'if the student does not run on that, a size that it declares.',
        'Use an integer, or (height, width).',
        None,
    )
    input_shape: Any = _key(
        'The whole shape of an image, (channels, height, width), or of a '
        'clip, (frames, channels, height, width), instead of `input_size`. '
        "None: the channels are the student's, else 3.",
        'Use (channels, height, width).',
        None,
    )
    task_weight: float = _key(
        "Multiplies the losses of the student's own task. 0: the student runs "
        'as far as its taps and needs no annotations.',
        'Use a number, 0 (without labels) or more.',
        1.0,
        ge=0,
    )
    task_schedule: ScheduleSpec | None = _key(
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
            _check_name('teachers', 'a teacher', name)
            if hasattr(nn.ModuleDict(), name):
                raise ValueError(
                    f'`teachers` has a teacher named {name!r}, which is '
                    "reserved. Choose another name, for instance 'dino'."
                )
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
        cure = cls.model_fields['teacher'].json_schema_extra['cure']
        if given is None:
            key = info.context['key']
            raise ValueError(f'`{key}` has no `teacher`. {cure}')
        if isinstance(given, list | tuple):
            cure = cls.model_fields['teachers'].json_schema_extra['cure']
            cure = f'Several teachers have names. {cure}'
        raise ValueError(f'`teacher` is {_shown(given)}. {cure}')

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
