"""Comparing methods over the same seeds: runs, statistics and tables."""

import csv
import math
import re
import runpy
import statistics
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from matplotlib.figure import Figure
from scipy import stats

from mmdiffkd.utils import load_config, teachers_of
from mmdiffkd.utils.command_line import package_of
from mmdiffkd.visualization.training_curves import PALETTE

from .tables import markdown
from .training import (
    ChildFailed,
    OtherSettings,
    Run,
    evaluate,
    stop_children,
    train,
)

CONFIDENCE = 0.95
#: What is compared, by the package of the recipe; higher is better.
METRICS = {
    'mmpretrain': 'accuracy/top1',
    'mmdet': 'coco/bbox_mAP',
    'mmseg': 'mIoU',
}
#: Settings are chosen on the first and reported on the second.
SPLITS = ('val', 'test')


def read_variants(named: str) -> dict[str, tuple[str, dict]]:
    """The rows of a comparison: label to a config and what is changed in it.

    Args:
        named (str): ``FILE`` or ``FILE:NAME``, where NAME is a dict in the
            Python file FILE. Without it ``variants``.

    Raises:
        ValueError: If there is no such file, or no such dict in it.
    """
    path, separator, name = named.rpartition(':')
    if not separator or Path(named).is_file():
        path, name = named, 'variants'
    if not Path(path).is_file():
        raise ValueError(f'--variants {named}: there is no file {path}.')
    found = runpy.run_path(path)
    if not isinstance(found.get(name), Mapping):
        tables = [
            key
            for key, value in found.items()
            if isinstance(value, Mapping) and not key.startswith('_')
        ]
        raise ValueError(
            f'--variants {named}: {path} has no dict {name!r}. It has '
            f'{", ".join(tables) or "none"}: write FILE:NAME.'
        )
    return dict(found[name])


def folder_name(label: str) -> str:
    """A label as the name of a folder."""
    return re.sub(r'[^\w.-]+', '-', label).strip('-')


def default_metric(config: str) -> str:
    """The metric that the package of a config reports."""
    package = package_of(load_config(config))
    return METRICS.get(package, METRICS['mmpretrain'])


def in_per_cent(metrics: Mapping, name: str) -> float:
    """A metric in per cent; mmdet logs average precision as a fraction."""
    return metrics[name] * (100 if name.startswith('coco/') else 1)


def metric_of(result: Mapping, name: str) -> float:
    """A metric of a run's result, in per cent.

    Raises:
        ValueError: If there is none of this name.
    """
    if name not in result['metrics']:
        raise ValueError(
            f'--metric {name}: the evaluation of {result["config"]} gave '
            f'{sorted(result["metrics"])}. Choose one of these.'
        )
    return in_per_cent(result['metrics'], name)


def plan(
    variants: Mapping[str, tuple[str, Mapping]],
    seeds: Iterable[int],
    work_dir: Path,
    teacher_checkpoint: str | None = None,
    cfg_options: Mapping | None = None,
) -> dict[tuple[str, int], Run]:
    """The runs to do by label and seed, all methods of a seed together.

    Args:
        variants (Mapping): Label to a config and what is changed in it. In
            a text, ``{seed}`` stands for the seed, so that a run can begin
            with what another one of its seed has trained.
        seeds (Iterable[int]): The seeds.
        work_dir (Path): Where the folders of the runs go.
        teacher_checkpoint (str, optional): Weights for every teacher.
        cfg_options (Mapping, optional): What is changed in every config; a
            variant's own changes win.

    Raises:
        ValueError: If weights are given and a config has several teachers.
    """
    weights = {
        label: _teacher_weights(config, teacher_checkpoint)
        for label, (config, _) in variants.items()
    }
    runs = {}
    for seed in seeds:
        for label, (config, own) in variants.items():
            options = {**(cfg_options or {}), 'randomness.seed': seed}
            options |= weights[label]
            folder = work_dir / folder_name(label) / f'seed_{seed}'
            own_of_seed = {
                key: value.replace('{seed}', str(seed))
                if isinstance(value, str)
                else value
                for key, value in own.items()
            }
            runs[label, seed] = Run(config, folder, options | own_of_seed)
    return runs


def _teacher_weights(config: str, checkpoint: str | None) -> dict[str, str]:
    """What changes in a config so that its teacher has these weights."""
    if not checkpoint:
        return {}
    teachers = teachers_of(load_config(config).model)
    if len(teachers) > 1:
        raise ValueError(
            f'--teacher-checkpoint {checkpoint}: {config} has several '
            f'teachers ({", ".join(teachers)}). Leave the flag out, and give '
            'each its `checkpoint` in the config.'
        )
    return {f'model.{key}.checkpoint': checkpoint for key in teachers}


def train_and_evaluate(
    run: Run, split: str, threads: int | None = None
) -> dict:
    """The result of :func:`~.training.train`, with the metrics of a split.

    ``'val'`` takes the last validation, ``'test'`` evaluates the last
    checkpoint on the test data.
    """
    result = train(run, threads)
    if split == 'test':
        result['metrics'] = evaluate(run, threads)
    return result


def run_all(
    runs: Mapping[tuple[str, int], Run],
    split: str,
    metric: str,
    jobs: int = 1,
) -> dict[tuple[str, int], dict]:
    """Train and evaluate runs, and print the metric of each as it ends.

    With more than one job at a time, each has one thread. The results have
    the keys of the runs.

    Raises:
        ChildFailed: If a run failed. The others are finished first.
        ValueError: If there is no such metric.
    """
    threads = 1 if jobs > 1 else None
    results, failures = {}, 0
    with ThreadPoolExecutor(jobs) as pool:
        started = {
            pool.submit(train_and_evaluate, run, split, threads): key
            for key, run in runs.items()
        }
        try:
            for future in as_completed(started):
                label, seed = key = started[future]
                try:
                    results[key] = result = future.result()
                except (ChildFailed, OtherSettings) as error:
                    failures += 1
                    print(f'{label}, seed {seed}: FAILED\n{error}', flush=True)
                    continue
                print(
                    f'[{len(results)}/{len(runs)}] {label}, seed {seed}: '
                    f'{metric} {metric_of(result, metric):.2f} '
                    f'({result["seconds"]:.0f} s)',
                    flush=True,
                )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop_children()
            raise
    if failures:
        raise ChildFailed(
            f'{failures} of {len(runs)} runs failed, so there is no table. '
            'Start the same command again: finished runs are kept.'
        )
    return results


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
    times: Mapping[str, Sequence[float]],
    seeds: Sequence[int],
    metric: str,
    note: str,
    prefix: Path,
) -> str:
    """Write ``prefix.md``, ``prefix.csv`` and ``prefix.png``.

    Args:
        values (Mapping[str, Sequence[float]]): See :func:`summarise`.
        times (Mapping[str, Sequence[float]]): Method to seconds a step, one
            value a seed.
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
        ratio = statistics.fmean(
            b / a for a, b in zip(times[first], times[label])
        )
        by_seed = {f'seed {s}': v for s, v in zip(seeds, values[label])}
        rows.append({'method': label, **row, 'time_ratio': ratio, **by_seed})
        spread = '' if math.isnan(row['sd']) else f'{row["sd"]:.2f}'
        gain = _gain_and_interval(row)
        p = row.get('p', math.nan)
        chance = '< 0.001' if p < 1e-3 else f'{p:.3f}'
        chance = '' if math.isnan(p) else chance
        mean = f'{row["mean"]:.2f}'
        cells.append([label, mean, spread, gain, chance, f'{ratio:.2f}x'])
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
