"""Tables and pictures of what the benchmarks measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mmdiffkd.visualization.training_curves import PALETTE

# Columns of :func:`~.tables.table`.
PART_COLUMNS = [
    ('', '{part}'),
    ('median, ms', '{ms:.2f}'),
    ('quartiles, ms', '{ms_low:.2f} to {ms_high:.2f}'),
    ('peak memory, MiB', '{peak_mib:.1f}'),
    ('GMACs', '{gmacs:.2f}'),
]
METHOD_COLUMNS = [
    ('', '{part}'),
    ('time a step', '{ratio:.2f}x'),
    ('peak memory', '{memory_ratio:.2f}x'),
    ('GMACs', '{gmacs:.2f}'),
]
COMPARED_COLUMNS = [
    ('', '{case}'),
    ('float32, ms', '{float32[ms]:.1f}'),
    ('half, ms', '{half[ms]:.1f}'),
    ('released, ms', '{released[ms]:.1f}'),
    ('float32 / released', '{float32[ratio]:.2f}'),
    ('half / released', '{half[ratio]:.2f}'),
    ('float32, compiled / eager', '{float32_compiled[eager_ratio]:.2f}'),
    ('half, compiled / eager', '{half_compiled[eager_ratio]:.2f}'),
    ('float32, MiB', '{float32[peak_mib]:.1f}'),
    ('half, MiB', '{half[peak_mib]:.1f}'),
    ('released, MiB', '{released[peak_mib]:.1f}'),
]
GROWTH_COLUMNS = [
    ('', '{part}'),
    ('GMACs', '{gmacs:.2f}'),
    ('median, ms', '{ms:.1f}'),
    ('predicted, ms', '{predicted_ms:.1f}'),
    ('kept for backward, MiB', '{kept_mib:.1f}'),
    ('peak memory, MiB', '{peak_mib:.1f}'),
    ('predicted, MiB', '{predicted_mib:.1f}'),
]


def split_document(document: str | Path, name: str) -> tuple[str, str]:
    """What stands before and after the place of a table in a document.

    The place is between the lines ``<!-- name:begin -->`` and
    ``<!-- name:end -->``, which belong to what is around it.

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
    """Draw what a benchmark returned: bars, or for growth dots and lines."""
    if 'growth' in result:
        figure = _plot_growth(result['growth'])
    else:
        figure = _plot_bars(result.get('rows') or _rows(result['compared']))
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)


def _rows(compared: Sequence[Mapping]) -> list[dict]:
    """A row for each case and each form of the neck."""
    return [
        row | {'part': f'{case["case"]}, {part.replace("_", ", ")}'}
        for case in compared
        for part, row in case.items()
        if part != 'case'
    ]


def _figure(rows: int, columns: int, **size) -> tuple[Figure, np.ndarray]:
    figure = Figure(dpi=120, layout='constrained', **size)
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.grid(axis='x' if rows == 1 else 'both', color='0.9')
        ax.set_axisbelow(True)
        ax.spines[['top', 'right']].set_visible(False)
    return figure, axes


def _plot_bars(rows: Sequence[Mapping]) -> Figure:
    """Bars of time, with a line between its quartiles, and of memory."""
    figure, ((left, right),) = _figure(
        1, 2, figsize=(9, 1.4 + 0.48 * len(rows))
    )
    at = range(len(rows))
    left.barh(at, [row['ms'] for row in rows], 0.72, color=PALETTE[0])
    low, high = ([row[key] for row in rows] for key in ('ms_low', 'ms_high'))
    left.hlines(at, low, high, color='0.3')
    right.barh(at, [row['peak_mib'] for row in rows], 0.72, color=PALETTE[0])
    left.set_title('time, ms', fontsize=10, loc='left')
    right.set_title('peak memory, MiB', fontsize=10, loc='left')
    left.set_yticks(at, [row['part'] for row in rows])
    right.set_yticks(at, [])
    for axes in (left, right):
        axes.invert_yaxis()
    left.set_xlim(left=0)
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
