"""Tables and pictures of what the benchmarks measured."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mmdiffkd.visualization.training_curves import PALETTE

from .tables import markdown

Column = tuple[str, Callable[[Mapping], str]]


def number(key: str, digits: int = 1) -> Callable[[Mapping], str]:
    """The cell of a column that shows a number of a row.

    Args:
        key (str): Its key. A row without it has an empty cell.
        digits (int): Digits behind the point. Defaults to 1.
    """
    return lambda row: f'{row[key]:.{digits}f}' if key in row else ''


def _of(part: str, key: str, digits: int = 1) -> Callable[[Mapping], str]:
    return lambda row: number(key, digits)(row.get(part, {}))


LABELS = {
    'float32': 'ours, float32',
    'half': 'ours, half precision',
    'float32_compiled': 'ours, float32, compiled',
    'half_compiled': 'ours, half precision, compiled',
    'released': 'released',
}
PART_COLUMNS = [
    ('', lambda row: row['part']),
    ('median, ms', number('ms', 2)),
    (
        'quartiles, ms',
        lambda row: f'{row["ms_low"]:.2f} to {row["ms_high"]:.2f}',
    ),
    ('peak memory, MiB', number('peak_mib')),
    ('GMACs', number('gmacs', 2)),
]
COMPARED_COLUMNS = [
    ('', lambda row: row['case']),
    ('float32, ms', _of('float32', 'ms')),
    ('half, ms', _of('half', 'ms')),
    ('released, ms', _of('released', 'ms')),
    ('float32 / released', _of('float32', 'ratio', 2)),
    ('half / released', _of('half', 'ratio', 2)),
    ('float32, compiled / eager', _of('float32_compiled', 'eager_ratio', 2)),
    ('half, compiled / eager', _of('half_compiled', 'eager_ratio', 2)),
    ('float32, MiB', _of('float32', 'peak_mib')),
    ('half, MiB', _of('half', 'peak_mib')),
    ('released, MiB', _of('released', 'peak_mib')),
]
GROWTH_COLUMNS = [
    ('', lambda row: row['part']),
    ('GMACs', number('gmacs', 2)),
    ('median, ms', number('ms')),
    ('predicted, ms', number('predicted_ms')),
    ('kept for backward, MiB', number('kept_mib')),
    ('peak memory, MiB', number('peak_mib')),
    ('predicted, MiB', number('predicted_mib')),
]


def table(rows: Sequence[Mapping], columns: Sequence[Column]) -> str:
    """Measured rows in Markdown.

    Args:
        rows (Sequence[Mapping]): One a line.
        columns (Sequence[Column]): Headings, and what makes a cell of a row.
            Columns that are empty in every row are left out.
    """
    cells = [[cell(row) for row in rows] for _, cell in columns]
    kept = [i for i, column in enumerate(cells) if any(column)]
    return markdown(
        [columns[i][0] for i in kept], zip(*(cells[i] for i in kept))
    )


def compared_table(compared: Sequence[Mapping]) -> str:
    """The table of :func:`~mmdiffkd.analysis.benchmark_neck.compare`."""
    return table(compared, COMPARED_COLUMNS)


def split_document(document: str | Path, name: str) -> tuple[str, str]:
    """What stands before and after the place of a table in a document.

    The place is between the lines ``<!-- name:begin -->`` and
    ``<!-- name:end -->``, which belong to what is around it.

    Args:
        document (str | Path): A Markdown file.
        name (str): Name of the place.

    Raises:
        ValueError: If there is no such place.
    """
    begin, end = f'<!-- {name}:begin -->\n', f'<!-- {name}:end -->'
    before, found, rest = Path(document).read_text().partition(begin)
    _, also_found, after = rest.partition(end)
    if not (found and also_found):
        raise ValueError(
            f'--into {document} {name}: there is no {begin.strip()} with '
            f'{end} after it. Add the two lines where the tables belong.'
        )
    return before + begin, end + after


def plot(result: Mapping, out: Path) -> None:
    """Draw what was measured: bars, or for growth dots beside lines.

    Args:
        result (Mapping): What a benchmark returned.
        out (Path): The picture to write; the ending sets its format.
    """
    if 'growth' in result:
        figure = _plot_growth(result['growth'])
    elif 'rows' in result:
        rows = result['rows']
        figure = _plot_bars([row['part'] for row in rows], {'': rows})
    else:
        compared = result['compared']
        series = {
            label: [row[part] for row in compared]
            for part, label in LABELS.items()
            if part in compared[0]
        }
        figure = _plot_bars([row['case'] for row in compared], series)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)


def _figure(rows: int, columns: int, **size) -> tuple[Figure, np.ndarray]:
    figure = Figure(dpi=120, layout='constrained', **size)
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.grid(axis='x' if rows == 1 else 'both', color='0.9')
        ax.set_axisbelow(True)
        for side in ('top', 'right'):
            ax.spines[side].set_visible(False)
    return figure, axes


def _plot_bars(
    groups: Sequence[str], series: Mapping[str, Sequence[Mapping]]
) -> Figure:
    """Bars of time and memory; of several series relative to the last."""
    height = 1.4 + 0.3 * len(groups) * (len(series) + 0.6)
    figure, (panels,) = _figure(1, 2, figsize=(9, height))
    thick = 0.8 / len(series)
    last = list(series.values())[-1]
    keys = {'ms': 'time, ms', 'peak_mib': 'peak memory, MiB'}
    for axes, (key, title) in zip(panels, keys.items()):
        for index, (label, rows) in enumerate(series.items()):
            at = np.arange(len(groups)) + (index - len(series) / 2) * thick
            for place, row, other in zip(at, rows, last):
                unit = other[key] if len(series) > 1 else 1
                axes.barh(
                    place,
                    row[key] / unit,
                    height=0.9 * thick,
                    align='edge',
                    color=PALETTE[index],
                    label=label if row is rows[0] else None,
                )
                if key == 'ms':
                    quartiles = row['ms_low'] / unit, row['ms_high'] / unit
                    middle = place + 0.45 * thick
                    axes.plot(quartiles, [middle] * 2, color='0.3')
                if len(series) > 1:
                    text = f' {row[key]:.3g}'
                    axes.text(row[key] / unit, place, text, va='top', size=8)
        if len(series) > 1:
            title += f' (bar: {list(series)[-1]} = 1)'
        axes.set_title(title, fontsize=10, loc='left')
        axes.set_yticks(range(len(groups)), groups)
        axes.invert_yaxis()
    panels[0].set_xlim(left=0)
    panels[1].tick_params(labelleft=False)
    if len(series) > 1:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc='outside lower center', ncols=len(series)
        )
    return figure


def _plot_growth(growth: Sequence[Mapping]) -> Figure:
    quantities = list(dict.fromkeys(row['quantity'] for row in growth))
    figure, axes = _figure(2, len(quantities), figsize=(11, 5.5))
    for column, quantity in zip(axes.T, quantities):
        rows = [row for row in growth if row['quantity'] == quantity]
        values = [row['value'] for row in rows]
        for ax, measured, predicted in zip(
            column, ('ms', 'peak_mib'), ('predicted_ms', 'predicted_mib')
        ):
            ax.plot(values, [row[predicted] for row in rows], color='0.6')
            ax.plot(values, [row[measured] for row in rows], 'o', c=PALETTE[0])
            ax.set_ylim(bottom=0)
        column[0].set_title(quantity, fontsize=10, loc='left')
    axes[0, 0].set_ylabel('time, ms')
    axes[1, 0].set_ylabel('peak memory, MiB')
    figure.supxlabel('dots: measured; line: what the arithmetic predicts')
    return figure
