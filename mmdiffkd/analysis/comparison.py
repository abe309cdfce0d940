"""Comparing methods over the same seeds: which runs, and what they gave."""

import re
import runpy
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from mmdiffkd.utils import load_config, teachers_of
from mmdiffkd.utils.command_line import package_of

from .training import (
    ChildFailed,
    OtherSettings,
    Run,
    evaluate,
    stop_children,
    train,
)

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


def choose_rows(
    configs: Sequence[str],
    labels: Sequence[str] | None = None,
    variants: str | None = None,
    text: str | None = None,
) -> dict[str, tuple[str, dict]]:
    """The rows of a comparison, in order.

    Args:
        configs (Sequence[str]): Configs, each a row.
        labels (Sequence[str], optional): Their labels. Defaults to None:
            their file names.
        variants (str, optional): What :func:`read_variants` takes, for rows
            after these. Defaults to None.
        text (str, optional): Only rows with this in their label. Defaults to
            None, all.

    Raises:
        ValueError: If there is no row, or labels do not fit.
    """
    labels = labels or [Path(config).stem for config in configs]
    if len(labels) != len(configs):
        raise ValueError(
            f'--labels names {len(labels)} methods, but there are '
            f'{len(configs)} configs: give one label each.'
        )
    rows = [(label, (config, {})) for label, config in zip(labels, configs)]
    if variants:
        rows += read_variants(variants).items()
    if not rows:
        raise ValueError('Give at least one CONFIG, or --variants FILE.')
    if text is not None:
        labels = [label for label, _ in rows]
        rows = [row for row in rows if text in row[0]]
        if not rows:
            raise ValueError(
                f'--rows {text!r}: no label holds it; they are '
                f'{", ".join(labels)}.'
            )
    folders = [folder_name(label) for label, _ in rows]
    if len(set(folders)) < len(folders):
        raise ValueError(f'Each method needs a label of its own: {folders}')
    return dict(rows)


def weighted_rows(
    labels: Iterable[str],
    row: Callable[[str, float], tuple[str, dict]],
    chosen: Mapping[str, float],
    grid: Sequence[float],
) -> tuple[dict[str, tuple[str, dict]], dict[str, tuple[str, dict]]]:
    """Rows at the weights that were chosen, and the grid to choose from.

    Args:
        labels (Iterable[str]): The rows.
        row (Callable): Gives a label's config and options at a weight.
        chosen (Mapping[str, float]): The weights by label; 1 where a label
            is missing.
        grid (Sequence[float]): The weights to choose from.
    """
    at_chosen = {label: row(label, chosen.get(label, 1.0)) for label in labels}
    at_all = {
        f'{label}, weight {weight:g}': row(label, weight)
        for label in labels
        for weight in grid
    }
    return at_chosen, at_all


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
