"""The keys of a teacher."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from torch import nn

from ..normalization import EXAMPLE
from .base import Spec, field

#: What a teacher that needs no name is called.
ONLY_TEACHER = 'teacher'

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


class TeacherSpec(Spec):
    """Which network teaches, and how it runs."""

    module: Any = field(
        'A network that no config describes, instead of `config`: what '
        'returns it, a function, a class or a classmethod by its path '
        "('timm.create_model'), or in Python the built module itself.",
        'Write the path of something that returns a network, for instance '
        "'timm.create_model', 'torchvision.models.resnet50' or "
        "'transformers.AutoModel.from_pretrained'.",
        None,
    )
    kwargs: Any = field(
        'The keyword arguments of `module`. None: none.',
        "Write a dict, for instance dict(model_name='resnet50').",
        None,
    )
    config: Any = field(
        "The teacher's whole config: a path (from the current directory, or "
        'beside the config file that is read), a package::name, or the '
        "config itself. Of a distiller's it is the student that teaches.",
        "Add teacher=dict(config=...), a path, a 'package::name' or the "
        'config itself.',
        None,
        validate_default=True,
    )
    checkpoint: str | Path | None = field(
        'Its weights, a file of torch or safetensors (looked for as config '
        "is), or an https URL: a plain model's, an MMEngine run's, or a "
        "distiller's checkpoint. None means a random teacher, on purpose, or "
        'the weights with which `module` builds it; it has to be said.',
        'Add teacher=dict(checkpoint=...), a file or an https URL; None for '
        'a random teacher, if that is what you want.',
    )
    data_preprocessor: Any = field(
        'What normalises its images, dict(type=...), instead of the '
        "`data_preprocessor` of its config. None: the config's, or what the "
        "library of `module` says; if there is none, the student's.",
        f'Write dict(type=...), for instance {EXAMPLE}.',
        None,
    )
    input_size: _Size = field(
        "Height and width to which the student's images are resized for the "
        "teacher; an integer for both. None: the student's.",
        'Use a positive integer, or (height, width).',
        None,
    )
    strict: bool = field(
        'Refuse missing and unexpected keys of the checkpoint.',
        'Use True or False.',
        True,
    )
    trusted: bool = field(
        'Unpickle anything in the checkpoint, which runs code from it.',
        'Use True or False.',
        False,
    )
    inherit: Any = field(
        "Paths of modules below which the student begins with the teacher's "
        "values where names and shapes agree, ('neck', 'bbox_head') say.",
        'Write a tuple of module paths.',
        (),
    )
    fold_batch_norm: bool | None = field(
        'Fold batch norms into the convolutions before them; never one with '
        'a tap on it. None: where no tap differs by more than 1e-4 of its '
        'norm, but not in a module that is given built, nor where the '
        'weights are random. True: a larger difference stops the run.',
        'Use True, False or None.',
        None,
    )
    channels_last: bool | None = field(
        "Keep the channels of an image's position side by side in memory, "
        'which convolutions prefer. None: likewise, in networks with batch '
        'norms.',
        'Use True, False or None.',
        None,
    )
    dtype: Literal['bfloat16', 'float16'] | None = field(
        "'bfloat16' or 'float16': run under autocast to this type, whatever "
        "the student runs in. Tapped tensors are handed on in the input's "
        'type.',
        "Use 'bfloat16', 'float16', or None for the student's.",
        None,
    )
    compile: bool = field(
        'Compile the forward pass by torch.compile.',
        'Use True or False.',
        False,
    )

    @property
    def is_built(self) -> bool:
        """Whether `module` is a network rather than what makes one."""
        return isinstance(self.module, nn.Module)

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """What ``dtype`` names."""
        return self.dtype and getattr(torch, self.dtype)

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
            raise ValueError(
                f'{cls._lacks("config", key)} A network of another library '
                'is a `module` instead.'
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


def teacher_label(name: str) -> str:
    """What logs and tables call a teacher: ``"teacher 'dino'"``."""
    return 'teacher' if name == ONLY_TEACHER else f'teacher {name!r}'
