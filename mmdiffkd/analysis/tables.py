"""Tables, in Markdown and in plain text."""

from collections.abc import Iterable, Sequence

from tabulate import DataRow, TableFormat, tabulate

_ROW = DataRow('| ', ' | ', ' |')
#: Cells are not padded: a changed figure changes one line of a document.
_MARKDOWN = TableFormat(
    lineabove=None,
    linebelowheader=lambda widths, _: f'|{"---|" * len(widths)}',
    linebetweenrows=None,
    linebelow=None,
    headerrow=_ROW,
    datarow=_ROW,
    padding=0,
    with_header_hide=None,
)


def markdown(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown.

    Args:
        headings (Sequence[str]): The first line.
        rows (Iterable[Sequence[object]]): The others; texts are printed as
            they are.

    Returns:
        str: The lines, without an end of line after the last.
    """
    return tabulate(
        rows,
        headings,
        tablefmt=_MARKDOWN,
        stralign=None,
        disable_numparse=True,
    )


def aligned(
    rows: Iterable[Sequence[str]], label: int = 28, cell: int = 12
) -> str:
    """A table in plain text.

    Args:
        rows (Iterable[Sequence[str]]): Rows, each with a label first.
        label (int): Width of the labels, which stand on the left. Defaults
            to 28.
        cell (int): Width of the other cells, which stand on the right.
            Defaults to 12.

    Returns:
        str: The lines, without an end of line after the last.
    """
    return '\n'.join(
        f'{first:<{label}}' + ''.join(f'{text:>{cell}}' for text in others)
        for first, *others in rows
    )
