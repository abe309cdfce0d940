"""Names in configs: what a type is called, and help for a wrong name."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """A hint for an error message: the nearest known names, or all of them.

    Args:
        name (object): The name that was not found, a text or not.
        known (Iterable[str]): The names that exist.

    Returns:
        str: A sentence to append to an error message.
    """
    name, known = str(name), sorted(set(known))
    near = get_close_matches(name, known, n=5, cutoff=0.6)
    near = near or [k for k in known if name in k][:5]
    if near:
        return f'Did you mean {" or ".join(repr(n) for n in near)}?'
    return f'Known names: {", ".join(known[:30])}'


def type_name(kind: object) -> str:
    """The bare name of what a config has as ``type``.

    Args:
        kind (object): ``'Name'``, ``'package.Name'``, or a class or function,
            as MMEngine's new style of configs has it.
    """
    return getattr(kind, '__name__', str(kind)).rpartition('.')[2]


def left_over_hint(error: Exception) -> str:
    """What to add to Python's error about an argument that a class lacks.

    Dicts of a config merge key by key, so that a dict whose ``type`` was
    changed keeps the keys of the former type.

    Args:
        error (Exception): The error of the constructor.

    Returns:
        str: Words to append to the error; empty for another error.
    """
    if 'unexpected keyword argument' not in str(error):
        return ''
    return (
        '. Correct its name. If a `type` was changed, it is left over from '
        'the former one: add `_delete_=True` beside the new `type`, which '
        'replaces the whole dict.'
    )
