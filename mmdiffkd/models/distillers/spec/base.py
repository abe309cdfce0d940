"""A part of a config as data: its keys, and what to say of a wrong one."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from mmdiffkd.utils.naming import did_you_mean

_NAME = re.compile('[a-z][a-z0-9_]*')


def field(description: str, cure: str, default: Any = ..., **limits) -> Any:
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
    def _cure(cls, name: str) -> str:
        return cls.model_fields[name].json_schema_extra['cure']

    @classmethod
    def _lacks(cls, name: str, key: str) -> ValueError:
        return ValueError(f'`{key}` has no `{name}`. {cls._cure(name)}')

    @classmethod
    def _wrong(cls, name: str, shown: str, key: str = '') -> ValueError:
        where = f'{key}.{name}' if key else name
        return ValueError(f'`{where}` is {shown}. {cls._cure(name)}')

    @classmethod
    def _explain(cls, found: dict, key: str) -> tuple[str, str]:
        """One of pydantic's errors: the wrong key, and words with the cure."""
        name, *rest = found['loc'] or ('',)
        known = cls.model_fields.get(name)
        if rest and known is not None:
            inner = next(iter(get_args(known.annotation)), None)
            if isinstance(inner, type) and issubclass(inner, Spec):
                found = {**found, 'loc': rest}
                return inner._explain(found, f'{key}.{name}')
        where = f'{key}.{name}'
        if found['type'] == 'value_error':
            return where, str(found['ctx']['error'])
        if known is None:
            return where, (
                f'`{key}` has an unknown key {name!r}. '
                + did_you_mean(name, cls.model_fields)
            )
        if found['type'] == 'missing':
            return where, str(cls._lacks(name, key))
        return where, str(cls._wrong(name, repr(found['input']), key))


def check_name(
    key: str,
    what: str,
    name: object,
    example: str,
    reserved: Sequence[str] = (),
) -> None:
    """Refuse a name of an entry or a teacher that modules cannot have.

    Args:
        key (str): Where it stands in the config.
        what (str): What has the name, for messages.
        name (object): The name.
        example (str): A better one, for messages.
        reserved (Sequence[str]): Names that are taken, besides the
            attributes of modules. Defaults to ().

    Raises:
        ValueError: If it is no such name, or reserved.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f'`{key}` has {what} named {name!r}. Use lower-case letters, '
            'digits and underscores, beginning with a letter.'
        )
    if name in reserved or hasattr(nn.ModuleDict(), name):
        raise ValueError(
            f'`{key}` has {what} named {name!r}, which is reserved. '
            f'Choose another name, for instance {example}.'
        )
