"""Tables, in Markdown and in plain text."""

from collections.abc import Iterable, Mapping, Sequence

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
    """A table in Markdown, without an end of line after the last."""
    return tabulate(
        rows,
        headings,
        tablefmt=_MARKDOWN,
        stralign=None,
        disable_numparse=True,
    )


def table(rows: Sequence[Mapping], columns: Sequence[tuple[str, str]]) -> str:
    """A table in Markdown of rows that are dicts.

    Args:
        rows (Sequence[Mapping]): The rows. One without a value that a cell
            shows has an empty cell.
        columns (Sequence[tuple[str, str]]): A heading, and what
            ``str.format`` makes a cell of: ``'{ms:.2f}'``. Columns that are
            empty in every row are left out.
    """
    cells = [[_cell(text, row) for row in rows] for _, text in columns]
    kept = [i for i, column in enumerate(cells) if any(column)]
    return markdown(
        [columns[i][0] for i in kept], zip(*(cells[i] for i in kept))
    )


def _cell(text: str, row: Mapping) -> str:
    try:
        return text.format_map(row)
    except KeyError:
        return ''


def aligned(
    rows: Iterable[Sequence[str]], label: int = 28, cell: int = 12
) -> str:
    """A table in plain text: labels on the left, cells on the right.

    Args:
        rows (Iterable[Sequence[str]]): Rows, each with a label first.
        label (int): Width of the labels. Defaults to 28.
        cell (int): Width of the other cells. Defaults to 12.
    """
    return '\n'.join(
        f'{first:<{label}}' + ''.join(f'{text:>{cell}}' for text in others)
        for first, *others in rows
    )
