"""Tables and pictures of what the benchmarks measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mmdiffkd.visualization.training_curves import PALETTE

LABELS = {
    'float32': 'ours, float32',
    'half': 'ours, half precision',
    'float32_compiled': 'ours, float32, compiled',
    'half_compiled': 'ours, half precision, compiled',
    'released': 'released',
}
# Columns of :func:`~.tables.table`.
PART_COLUMNS = [
    ('', '{part}'),
    ('median, ms', '{ms:.2f}'),
    ('quartiles, ms', '{ms_low:.2f} to {ms_high:.2f}'),
    ('peak memory, MiB', '{peak_mib:.1f}'),
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
        ax.spines[['top', 'right']].set_visible(False)
    return figure, axes


def _plot_bars(
    groups: Sequence[str], series: Mapping[str, Sequence[Mapping]]
) -> Figure:
    """Bars of time and memory; of several series relative to the last."""
    height = 1.4 + 0.3 * len(groups) * (len(series) + 0.6)
    figure, (panels,) = _figure(1, 2, figsize=(9, height))
    thick = 0.8 / len(series)
    *_, last = series
    keys = {'ms': 'time, ms', 'peak_mib': 'peak memory, MiB'}
    for axes, (key, title) in zip(panels, keys.items()):
        unit = 1
        if len(series) > 1:
            unit = np.array([row[key] for row in series[last]])
            title += f' (bar: {last} = 1)'
        for index, (label, rows) in enumerate(series.items()):
            at = np.arange(len(groups)) + (index - len(series) / 2) * thick
            bars = axes.barh(
                at,
                np.array([row[key] for row in rows]) / unit,
                height=0.9 * thick,
                align='edge',
                color=PALETTE[index],
                label=label,
            )
            if key == 'ms':
                low, high = (
                    np.array([row[end] for row in rows]) / unit
                    for end in ('ms_low', 'ms_high')
                )
                axes.hlines(at + 0.45 * thick, low, high, color='0.3')
            if len(series) > 1:
                figures = [f'{row[key]:.3g}' for row in rows]
                axes.bar_label(bars, figures, padding=3, size=8)
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
