"""The keys of a neck and of a loss, checked against their classes."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationInfo
from torch import nn

from mmdiffkd.models.losses import DistillLoss
from mmdiffkd.models.necks import DistillNeck
from mmdiffkd.registry import MODELS
from mmdiffkd.utils.arguments import check_arguments
from mmdiffkd.utils.naming import did_you_mean

from ...part import DistillPart, with_base


@dataclass(frozen=True)
class PartSpec:
    """A neck or a loss that is still to be built.

    Attributes:
        cls (type[DistillPart]): Its class, with all that the base class
            declares.
        arguments (dict): What the config gives for its constructor.
        key (str): Where it stands in the config, for messages.
    """

    cls: type[DistillPart]
    arguments: dict
    key: str


def read_part(given: object, info: ValidationInfo) -> PartSpec | None:
    """Read the ``neck`` or the ``loss`` of an entry.

    Args:
        given (Mapping or None): Its type and the keys that this takes.
        info (ValidationInfo): The name of the field, and in its context the
            key of the entry.

    Raises:
        ValueError: If the type is none of the kind, or a key is unknown or
            wrong.
    """
    if given is None and info.field_name == 'neck':
        return None
    key = f'{info.context["key"]}.{info.field_name}'
    neck = info.field_name == 'neck'
    example = 'DiffKDNeck' if neck else 'MSELoss'
    if not isinstance(given, Mapping) or 'type' not in given:
        raise ValueError(
            f'`{key}` is {given!r}. Write dict(type=...), for instance '
            f"dict(type='{example}')."
        )
    base, other = DistillNeck, DistillLoss
    if not neck:
        base, other = other, base
    cls = _find_class(given['type'], f'{key}.type', base)
    if issubclass(cls, other):
        kinds = ('loss', 'neck') if neck else ('neck', 'loss')
        raise ValueError(
            f'`{key}.type` is {given["type"]!r}, which is a {kinds[0]}, not '
            f'a {kinds[1]}. ' + did_you_mean(cls.__name__, _ours(base))
        )
    arguments = {
        k: v for k, v in given.items() if k not in ('type', '_scope_')
    }
    _check_keys(cls, arguments, key, base)
    check_arguments(cls, arguments, key)
    return PartSpec(with_base(cls, base), arguments, key)


def _check_keys(
    cls: type[nn.Module], arguments: Mapping, key: str, base: type
) -> None:
    """Refuse keys that a class does not take.

    Dicts merge key by key. Where a config or the command line changes
    ``type``, the keys of the former type are still there.
    """
    accepted = inspect.signature(cls).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
    unknown = [name for name in arguments if name not in accepted]
    if anything or not unknown:
        return
    formers = [
        name
        for name, other in _ours(base).items()
        if inspect.signature(other).parameters.keys() >= {*unknown}
    ]
    if not formers:
        raise ValueError(
            f'`{key}` has an unknown key {unknown[0]!r}. '
            + did_you_mean(unknown[0], accepted)
        )
    names = ', '.join(map(repr, unknown))
    raise ValueError(
        f'`{key}` has keys that {cls.__name__} does not take: {names}. They '
        f'are keys of {" and ".join(formers[:3])}. If `type` was changed, '
        'they are left over: replace the whole dict by '
        f"{key.rpartition('.')[2]}=dict(_delete_=True, type='{cls.__name__}', "
        f'...), or on the command line by `model.{key}._delete_=True '
        f'model.{key}.type={cls.__name__}`. If not, leave them out.'
    )


def _ours(base: type) -> dict[str, type]:
    """Our necks or losses, and those registered with them, by name."""
    MODELS.import_from_location()
    return {n: c for n, c in MODELS.module_dict.items() if issubclass(c, base)}


def _find_class(kind: object, key: str, base: type) -> type[nn.Module]:
    if isinstance(kind, type) and issubclass(kind, nn.Module):
        return kind
    if not isinstance(kind, str):
        raise ValueError(
            f'`{key}` is {kind!r}. Write the name of one of ours, '
            'package.Name, or a class of modules.'
        )
    if '.' not in kind:
        MODELS.import_from_location()
        if kind not in MODELS.module_dict:
            raise ValueError(
                f'`{key}` is {kind!r}, which mmdiffkd does not have. '
                + did_you_mean(kind, _ours(base))
            )
    try:
        cls = MODELS.get(kind)
    except Exception:
        cls = None
    if cls is None:
        raise ValueError(
            f'`{key}` is {kind!r}, which is not registered. Write the name '
            'of one of ours, or package.Name.'
        )
    return cls
