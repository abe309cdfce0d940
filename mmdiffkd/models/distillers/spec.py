"""The keys of a distiller, of an entry and of a teacher, as data.

A config is read here and nowhere else: what comes out has been checked,
except for what depends on the networks. The fields' descriptions make the
reference pages.
"""

import re
from collections.abc import Mapping, Sequence
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
    """How the weight of an entry changes over a run."""

    warmup: int = _key(
        'Over how many epochs (or iterations) the weight grows linearly; the '
        'n-th, counted from 1, has the factor min(n / warmup, 1). 0: none.',
        'Use a number of epochs (or iterations), 0 or more.',
        0,
        ge=0,
    )
    stop: int | None = _key(
        'After how many epochs (or iterations) distillation ends. None: '
        'never.',
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
_Taps = Annotated[
    tuple[str, ...] | None,
    BeforeValidator(
        lambda at: (
            (at,)
            if isinstance(at, str)
            else tuple(at)
            if isinstance(at, Sequence) and at
            else at
        )
    ),
    WithJsonSchema({'type': 'str or list of str'}),
]
_Axes = Literal['NCHW', 'NHWC', 'NLC', 'NCL', 'NC']
_LAYOUT = "Use 'NCHW', 'NHWC', 'NLC', 'NCL' or 'NC'."
_PREFIX = 'Use a number of tokens, 0 or more.'
_TAP = "Write a tap, for instance 'backbone[-1]', or a list of taps."


class EntrySpec(Spec):
    """What is compared, how, and with which weight."""

    at: _Taps = _key(
        'What to read of both networks: a tap, or a list of taps, one a '
        'level.',
        _TAP,
        None,
    )
    student_at: _Taps = _key('What to read of the student.', _TAP, None)
    teacher_at: _Taps = _key('What to read of the teacher.', _TAP, None)
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


def read_entry(name: str, given: object) -> EntrySpec:
    """Read an entry of ``distill``.

    Args:
        name (str): Its name.
        given (Mapping): Its keys and values.

    Raises:
        ValueError: If the name misleads or is reserved, or a key is unknown,
            missing or wrong.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f'`distill` has an entry named {name!r}. Use lower-case letters, '
            'digits and underscores, beginning with a letter.'
        )
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
    return EntrySpec.read(given, f'distill.{name}')


class TeacherSpec(Spec):
    """Which network teaches, and how it runs."""

    config: Any = _key(
        "The teacher's whole config: a path (from the current directory, or "
        'beside the config file that is read), a package::name, or the '
        "config itself. Of a distiller's it is the student that teaches.",
        "Add teacher=dict(config=...), a path, a 'package::name' or the "
        'config itself.',
    )
    checkpoint: str | Path | None = _key(
        'Its weights, a file of torch or safetensors (looked for as config '
        "is), or an https URL: a plain model's, an MMEngine run's, or a "
        "distiller's checkpoint. None means a random teacher, on purpose; it "
        'has to be said.',
        'Add teacher=dict(checkpoint=...), a file or an https URL; None for '
        'a random teacher, if that is what you want.',
    )
    data_preprocessor: Any = _key(
        'What normalises its images, dict(type=...), instead of the '
        "`data_preprocessor` of its config. None: the config's; if it has "
        "none, the student's.",
        f'Write dict(type=...), for instance {EXAMPLE}.',
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

    @field_validator('data_preprocessor')
    @classmethod
    def _is_dict(cls, given: object, info: ValidationInfo) -> object:
        if given is not None and not isinstance(given, Mapping):
            cure = cls.model_fields['data_preprocessor'].json_schema_extra
            key = info.context['key']
            raise ValueError(
                f'`{key}.data_preprocessor` is {given!r}. {cure["cure"]}'
            )
        return given


class DistillerSpec(Spec):
    """Who learns, who teaches, and what is compared."""

    student: Any = _key(
        "The student's model configuration: the `model` of its recipe.",
        "Add student=_base_.model, the recipe's `model`.",
    )
    teacher: Any = _key(
        'The teacher, a dict of its keys.',
        'Write teacher=dict(config=..., checkpoint=...).',
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

    @field_validator('teacher', 'distill')
    @classmethod
    def _is_dict(cls, given: object, info: ValidationInfo) -> object:
        name = info.field_name
        if isinstance(given, Mapping) or (
            name == 'distill' and isinstance(given, str)
        ):
            return given
        several = name == 'teacher' and isinstance(given, list | tuple)
        raise ValueError(
            f'`{name}` is {_shown(given)}. '
            + ('A distiller has one teacher. ' if several else '')
            + cls.model_fields[name].json_schema_extra['cure']
        )


def _shown(value: object) -> str:
    """A value for a message, by its type where it is long."""
    text = repr(value)
    if isinstance(value, list | tuple):
        return f'a {type(value).__name__} of {len(value)}'
    return text if len(text) < 80 else f'a {type(value).__name__}'


def read_entries(distill: Mapping) -> dict[str, EntrySpec]:
    """Read all entries of ``distill``, without those of None.

    Args:
        distill (Mapping): The entries by name.

    Raises:
        ValueError: See :func:`read_entry`. Where an entry is not whole,
            the message names the others, of which one may have been meant.
    """
    specs = {}
    for name, given in distill.items():
        if given is None:
            continue
        try:
            specs[name] = read_entry(name, given)
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
