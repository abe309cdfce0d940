"""Tables of a comparison: statistics over seeds, files and a picture."""

import csv
import math
import statistics
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from scipy import stats

from mmdiffkd.visualization.training_curves import PALETTE

from .tables import markdown

CONFIDENCE = 0.95
SEED = 'seed '


def read_table(path: Path) -> dict[tuple[str, int], float]:
    """Read a table that :func:`write_tables` wrote.

    Args:
        path (Path): Its ``.csv``.

    Returns:
        dict[tuple[str, int], float]: Its figures by method and seed.

    Raises:
        ValueError: If there is no such table.
    """
    try:
        with Path(path).open(newline='') as file:
            rows = list(csv.DictReader(file))
        return {
            (row['method'], int(key.removeprefix(SEED))): float(row[key])
            for row in rows
            for key in row
            if key.startswith(SEED) and row[key]
        }
    except (OSError, KeyError, ValueError, AttributeError) as error:
        raise ValueError(
            f'--known {path}: no table of this tool ({error!r}). Give the '
            '.csv that an earlier comparison wrote.'
        ) from error


def summarise(values: Mapping[str, Sequence[float]]) -> dict[str, dict]:
    """Compare methods over the same seeds, with the first of them.

    Args:
        values (Mapping[str, Sequence[float]]): Method to its metric, one
            value a seed, the seeds in the same order everywhere.

    Returns:
        dict[str, dict]: For each method ``mean`` and ``sd`` (sample standard
        deviation), and for all but the first ``gain`` (mean paired
        difference), ``low`` and ``high``: its 95 % confidence interval by
        Student's t over seeds, and ``p``: the probability of such a
        difference, or of a larger one, if there is none, by the same test
        and corrected for the number of methods by :func:`holm`. NaN where
        one seed is not enough.

    Raises:
        ValueError: If a method has another number of seeds.
    """
    first = next(iter(values))
    summary = {}
    for label, column in values.items():
        summary[label] = {
            'mean': statistics.fmean(column),
            'sd': statistics.stdev(column) if len(column) > 1 else math.nan,
        }
        if label == first:
            continue
        pairs = zip(values[first], column, strict=True)
        gains = [after - before for before, after in pairs]
        with warnings.catch_warnings():
            # One seed gives NaN, and equal gains an interval of width 0.
            warnings.simplefilter('ignore')
            test = stats.ttest_rel(column, values[first])
            low, high = test.confidence_interval(CONFIDENCE)
        summary[label] |= {
            'gain': statistics.fmean(gains),
            'low': float(low),
            'high': float(high),
            'p': float(test.pvalue),
        }
    others = [
        row
        for row in summary.values()
        if not math.isnan(row.get('p', math.nan))
    ]
    for row, p in zip(others, holm([row['p'] for row in others])):
        row['p'] = p
    return summary


def holm(values: Sequence[float]) -> list[float]:
    """Probabilities corrected for their number, in the same order.

    If a method is called different where its corrected value is below 0.05,
    the chance that any such call is wrong is below 0.05.

    Source: Holm, "A simple sequentially rejective multiple test procedure"
    (1979).
    """
    corrected, highest = list(values), 0.0
    order = sorted(range(len(values)), key=values.__getitem__)
    for rank, at in enumerate(order):
        factor = len(values) - rank
        highest = max(highest, min(1.0, factor * values[at]))
        corrected[at] = highest
    return corrected


def write_tables(
    values: Mapping[str, Sequence[float]],
    times: Mapping[str, Mapping[int, float]],
    seeds: Sequence[int],
    metric: str,
    note: str,
    prefix: Path,
) -> str:
    """Write ``prefix.md``, ``prefix.csv`` and ``prefix.png``.

    Args:
        values (Mapping[str, Sequence[float]]): See :func:`summarise`.
        times (Mapping[str, Mapping[int, float]]): Method to seconds a step,
            by seed; those that are not known are missing.
        seeds (Sequence[int]): The seeds, in the order of the values.
        metric (str): Name of the metric.
        note (str): A paragraph under the Markdown table.
        prefix (Path): The files' path without ending.

    Returns:
        str: The Markdown.
    """
    summary = summarise(values)
    first = next(iter(values))
    rows, cells = [], []
    for label, row in summary.items():
        ratios = [
            times[label][seed] / times[first][seed]
            for seed in seeds
            if seed in times[label] and seed in times[first]
        ]
        ratio = statistics.fmean(ratios) if ratios else math.nan
        by_seed = {f'{SEED}{s}': v for s, v in zip(seeds, values[label])}
        rows.append({'method': label, **row, 'time_ratio': ratio, **by_seed})
        spread = '' if math.isnan(row['sd']) else f'{row["sd"]:.2f}'
        gain = _gain_and_interval(row)
        p = row.get('p', math.nan)
        chance = '< 0.001' if p < 1e-3 else f'{p:.3f}'
        chance = '' if math.isnan(p) else chance
        mean = f'{row["mean"]:.2f}'
        time = f'{ratio:.2f}x' if ratios else ''
        cells.append([label, mean, spread, gain, chance, time])
    gain = f'gain over {first} (95 % CI)'
    head = ['', metric, 'sd', gain, 'p (Holm)', 'time a step']
    table = markdown(head, cells)
    text = f'{table}\n\n{note}\n'
    prefix.parent.mkdir(parents=True, exist_ok=True)
    Path(f'{prefix}.md').write_text(text)
    with Path(f'{prefix}.csv').open('w', newline='') as file:
        columns = dict.fromkeys(key for row in rows[::-1] for key in row)
        writer = csv.DictWriter(file, list(columns), lineterminator='\n')
        writer.writeheader()
        for row in rows:
            figures = {k: v for k, v in row.items() if isinstance(v, float)}
            rounded = {k: round(v, 4) for k, v in figures.items()}
            writer.writerow(row | rounded)
    _plot(values, summary, metric, Path(f'{prefix}.png'))
    return text


def _gain_and_interval(row: Mapping) -> str:
    if 'gain' not in row:
        return ''
    gain = f'{row["gain"]:+.2f}'
    if math.isnan(row['low']):
        return gain
    return f'{gain} ({row["low"]:+.2f} to {row["high"]:+.2f})'


def _plot(
    values: Mapping[str, Sequence[float]],
    summary: Mapping[str, Mapping],
    metric: str,
    out: Path,
) -> None:
    """Draw a dot a seed, beside it the paired gains and their interval."""
    labels = list(values)
    figure = Figure(
        figsize=(9, 1.2 + 0.45 * len(labels)), dpi=120, layout='constrained'
    )
    left, right = figure.subplots(1, 2, sharey=True)
    for at, label in enumerate(labels):
        colour = PALETTE[at % len(PALETTE)]
        dots = {'color': colour, 'alpha': 0.55, 'ls': '', 'marker': 'o'}
        bar = {'color': colour, 'marker': '|', 'ms': 18, 'mew': 2}
        row, column = summary[label], values[label]
        left.plot(column, [at] * len(column), markersize=5, **dots)
        left.plot(row['mean'], at, **bar)
        if at:
            gains = [b - a for a, b in zip(values[labels[0]], column)]
            right.plot(gains, [at] * len(gains), markersize=5, **dots)
            right.plot(row['gain'], at, **bar)
            ends = [row['low'], row['high']]
            right.plot(ends, [at, at], color=colour, linewidth=2)
    right.axvline(0, color='0.4', linewidth=1)
    left.set_yticks(range(len(labels)), labels)
    left.set_ylim(len(labels) - 0.5, -0.5)
    left.set_xlabel(f'{metric} (last epoch)')
    right.set_xlabel(f'gain over {labels[0]}')
    left.set_title('a dot a seed\nbar: mean', fontsize=10, loc='left')
    right.set_title(
        'difference by seed\nbar: mean, line: 95 % interval',
        fontsize=10,
        loc='left',
    )
    for axes in (left, right):
        axes.grid(axis='x', color='0.9')
        axes.set_axisbelow(True)
        axes.spines[['top', 'right', 'left']].set_visible(False)
        axes.tick_params(axis='y', length=0)
    figure.savefig(out)
