"""Values of a config against the annotations of what they are given to."""

import math
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

#: What an annotation is called in a message.
_NAMES = {
    int: 'an integer',
    float: 'a finite number',
    bool: 'True or False',
    str: 'a string',
    dict: 'a dict',
    types.NoneType: 'None',
}


def check_arguments(cls: type, given: Mapping, key: str) -> None:
    """Refuse values that are not of the types that a class asks for.

    A string where a number belongs would otherwise come up in the middle of
    training, or never. Annotations other than numbers, booleans, strings,
    dicts, sequences, literals and unions of these are not judged; neither
    are keys that the class does not name.

    Args:
        cls (type): The class; its ``__init__`` is annotated.
        given (Mapping): Values by argument.
        key (str): Where they stand in the config, for messages.

    Raises:
        ValueError: If a value does not fit; says which, and what would.
    """
    hints = get_type_hints(cls.__init__)
    for name, value in given.items():
        hint = hints.get(name, Any)
        if not _fits(value, hint):
            raise ValueError(
                f'`{key}.{name}` is {value!r}. Give {_describe(hint)}.'
            )


def _fits(value: object, hint: object) -> bool:
    origin = get_origin(hint) or hint
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if origin is Any or not isinstance(origin, type):
        return True
    if origin in (int, float):
        number = isinstance(value, int | origin)
        return number and not isinstance(value, bool) and math.isfinite(value)
    if isinstance(value, str):
        return origin in (str, object)
    return isinstance(value, origin)


def _describe(hint: object) -> str:
    options = get_args(hint)
    if get_origin(hint) is Literal:
        return ' or '.join(map(repr, options))
    if get_origin(hint) in (Union, types.UnionType):
        return ' or '.join(map(_describe, options))
    name = str(hint) if options else getattr(hint, '__name__', str(hint))
    return _NAMES.get(hint, name)
