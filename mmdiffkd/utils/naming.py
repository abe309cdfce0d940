"""Help for a name that was mistyped."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for an error message: the nearest known names, or all of them.

    Args:
        name (str): The name that was not found.
        known (Iterable[str]): The names that exist.

    Returns:
        str: A sentence to append to an error message.
    """
    known = sorted(set(known))
    near = get_close_matches(name, known, n=5, cutoff=0.6)
    near = near or [k for k in known if name in k][:5]
    if near:
        return f'Did you mean {" or ".join(repr(n) for n in near)}?'
    return f'Known names: {", ".join(known[:30])}'
