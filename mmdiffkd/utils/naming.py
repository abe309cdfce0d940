"""Help for a name that was mistyped."""

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
