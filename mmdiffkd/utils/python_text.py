"""Values of a config as Python text."""

from collections.abc import Mapping

WIDTH = 79


def as_python(value: object, indent: int = 0, before: int = 0) -> str:
    """A value as it would stand in a config, a dict as ``dict(...)``.

    Args:
        value (object): Dicts whose keys are names, lists, tuples and plain
            values.
        indent (int): How far the lines after the first are indented.
            Defaults to 0.
        before (int): Columns that are taken in the first line, with what
            follows the value. Defaults to 0.

    Returns:
        str: One line if it fits in 79 columns, else a line for each item.
    """
    if isinstance(value, Mapping):
        items = [(f'{name}=', item) for name, item in value.items()]
        opening, closing = 'dict(', ')'
    elif isinstance(value, list | tuple) and value:
        items = [('', item) for item in value]
        opening, closing = '[]' if isinstance(value, list) else '()'
    else:
        return repr(value)
    inner = indent + 4
    texts = [
        name + as_python(item, inner, len(name) + 1) for name, item in items
    ]
    comma = ',' if isinstance(value, tuple) and len(texts) == 1 else ''
    line = opening + ', '.join(texts) + comma + closing
    if '\n' not in line and indent + before + len(line) <= WIDTH:
        return line
    lines = [' ' * inner + text + ',' for text in texts]
    return '\n'.join([opening, *lines, ' ' * indent + closing])
