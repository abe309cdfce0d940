r"""Train several configs over several seeds and compare them in pairs.

Each run is a process of its own (``tools/train.py``) with a folder of its
own, so that a crash or a stop loses one run at most: start the same command
again, and finished runs are read, a begun one is resumed from its last
checkpoint, or restarted where it has none yet. The first config is what the
others are compared with. Reported is the validation metric of the *last*
epoch, never the best one.

    python tools/analysis_tools/compare_methods.py \
        STUDENT_ALONE.py DISTILLED.py --labels student DiffKD --seeds 5 \
        --teacher-checkpoint TEACHER.pth --out work_dirs/compare/table

writes ``table.md``, ``table.csv`` and ``table.png``. A grid of settings comes
from a file (``--variants grid.py``) that defines::

    variants = {
        'student': ('configs/a.py', {}),
        'weight 5': ('configs/b.py', {'model.distill.x.weight': 5.0}),
    }
"""

import argparse
import csv
import hashlib
import json
import math
import os
import re
import runpy
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.config import Config, DictAction
from scipy import stats

from mmdiffkd.utils import load_config
from mmdiffkd.visualization import read_scalars
from mmdiffkd.visualization.training_curves import PALETTE

TRAIN = Path(__file__).resolve().parents[1] / 'train.py'
CONFIDENCE = 0.95
#: What is compared, by the package of the recipe; higher is better.
METRICS = {
    'mmpretrain': 'accuracy/top1',
    'mmdet': 'coco/bbox_mAP',
    'mmseg': 'mIoU',
}


#: Children at work, those of other threads included.
_CHILDREN: set[subprocess.Popen] = set()


class ChildFailed(RuntimeError):
    """A child process failed; the message holds the end of its log."""


class OtherSettings(ValueError):
    """A folder holds a run of other settings, or something else."""


@dataclass(frozen=True)
class Run:
    """One training: a config, what is changed in it, and a folder."""

    config: str
    folder: Path
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def settings(self) -> Config:
        """The config with the options merged in."""
        config = load_config(self.config)
        config.merge_from_dict(dict(self.options))
        return config

    @property
    def fingerprint(self) -> str:
        """Tells settings apart: a hash over the whole merged config."""
        settings = json.dumps(
            self.settings.to_dict(), sort_keys=True, default=str
        )
        return hashlib.sha256(settings.encode()).hexdigest()

    @property
    def command(self) -> list[str]:
        """The command that trains it from the beginning."""
        command = [sys.executable, str(TRAIN), self.config]
        command += ['--work-dir', str(self.folder)]
        if self.options:
            command.append('--cfg-options')
            command += [
                f'{key}={value}' for key, value in self.options.items()
            ]
        return command


def run_child(
    command: Sequence[str],
    log: Path,
    threads: int | None = None,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Run a command with its output in a file.

    Args:
        command (Sequence[str]): The command and its arguments.
        log (Path): The file that takes stdout and stderr, appended to.
        threads (int, optional): OpenMP threads of the child. Defaults to
            None: as the environment has it.
        on_line (Callable, optional): Is called with each line as it comes.
            Defaults to None.

    Raises:
        ChildFailed: If the command fails: with the command, where the log
            is, and its last lines.
    """
    environment = dict(os.environ, PYTHONUNBUFFERED='1')
    if threads is not None:
        environment['OMP_NUM_THREADS'] = str(threads)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('a') as file:
        file.write(f'$ {shlex.join(command)}\n')
        child = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors='replace',
        )
        _CHILDREN.add(child)
        try:
            for line in child.stdout:
                file.write(line)
                file.flush()
                if on_line is not None:
                    on_line(line.rstrip('\n'))
        except BaseException:
            child.terminate()
            raise
        finally:
            child.stdout.close()
            code = child.wait()
            _CHILDREN.discard(child)
    if code:
        last = ''.join(log.read_text().splitlines(keepends=True)[-15:])
        raise ChildFailed(
            f'{shlex.join(command)}\nended with code {code}. The end of its '
            f'log, {log}:\n\n{last}'
        )


def train(
    run: Run,
    threads: int | None = None,
    on_line: Callable[[str], None] | None = None,
) -> dict:
    """Train a run, or read what it gave if it is finished.

    Args:
        run (Run): What to train.
        threads (int, optional): See :func:`run_child`. Defaults to None.
        on_line (Callable, optional): See :func:`run_child`. Defaults to
            None.

    Returns:
        dict: ``metrics`` (the last validation's), ``seconds`` (of training,
        validation and start included; after a resume, of the rest alone),
        ``seconds_per_step`` (median over what was logged), ``resumed``, and
        the run's settings.

    Raises:
        ChildFailed: If the training fails, or does not end with a
            validation.
        OtherSettings: If the folder holds anything but this run.
    """
    begun, finished = run.folder / 'run.json', run.folder / 'result.json'
    if begun.is_file():
        if json.loads(begun.read_text())['fingerprint'] != run.fingerprint:
            raise OtherSettings(
                f'{run.folder} holds a run of other settings than '
                f'{run.config} with {dict(run.options)}: remove that folder '
                'or choose another.'
            )
        if finished.is_file():
            return json.loads(finished.read_text())
    elif run.folder.is_dir() and any(run.folder.iterdir()):
        raise OtherSettings(
            f'{run.folder} holds something else: remove that folder or '
            'choose another.'
        )
    command, resumed = run.command, False
    if (run.folder / 'last_checkpoint').is_file():
        command, resumed = [*command, '--resume'], True
    elif run.folder.is_dir():
        shutil.rmtree(run.folder)
    record = {
        'config': run.config,
        'options': dict(run.options),
        'fingerprint': run.fingerprint,
    }
    _write_json(begun, record)

    start = time.perf_counter()
    run_child(command, run.folder / 'train.log', threads, on_line)
    seconds = time.perf_counter() - start
    training, validation = read_scalars(run.folder)
    if not validation or validation[-1]['step'] < _length(run.settings):
        if resumed:
            # Stopped between its last checkpoint and the validation of it,
            # which MMEngine does not make up for.
            shutil.rmtree(run.folder)
            return train(run, threads, on_line)
        raise ChildFailed(
            f'{run.folder} does not end with a validation: {run.config} has '
            'to validate at the end of training (train_cfg.val_interval).'
        )
    result = {
        **record,
        'metrics': validation[-1],
        'seconds': round(seconds, 1),
        'seconds_per_step': statistics.median(
            line['time'] for line in training
        ),
        'resumed': resumed,
    }
    _write_json(finished, result)
    return result


def _length(settings: Config) -> int:
    loop = settings.train_cfg
    return loop.get('max_epochs') or loop['max_iters']


def in_per_cent(metrics: Mapping, name: str) -> float:
    """A metric in per cent; mmdet logs average precision as a fraction."""
    return metrics[name] * (100 if name.startswith('coco/') else 1)


def metric_of(result: Mapping, name: str) -> float:
    """A metric of the last validation, in per cent.

    Raises:
        SystemExit: If there is none of this name; those there are listed.
    """
    try:
        return in_per_cent(result['metrics'], name)
    except KeyError:
        raise SystemExit(
            f'--metric {name}: the last validation of {result["config"]} '
            f'logged {sorted(result["metrics"])}.'
        ) from None


def _write_json(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix('.partial')
    partial.write_text(json.dumps(content, indent=1, default=str) + '\n')
    partial.replace(path)


def summarise(values: Mapping[str, Sequence[float]]) -> dict[str, dict]:
    """Compare methods over the same seeds.

    Args:
        values (Mapping[str, Sequence[float]]): Method to its metric, one
            value a seed, the seeds in the same order everywhere. The first
            method is what the others are compared with.

    Returns:
        dict[str, dict]: For each method ``mean`` and ``sd`` (sample standard
        deviation), and for all but the first ``gain`` (mean paired
        difference), ``low`` and ``high``: its 95 % confidence interval by
        Student's t over seeds. NaN where one seed is not enough.
    """
    first = next(iter(values.values()))
    summary = {}
    for label, column in values.items():
        summary[label] = {'mean': statistics.fmean(column), 'sd': _sd(column)}
        if column is first:
            continue
        gains = [b - a for a, b in zip(first, column, strict=True)]
        gain, half = statistics.fmean(gains), math.nan
        if len(gains) > 1:
            quantile = stats.t.ppf((1 + CONFIDENCE) / 2, len(gains) - 1)
            half = float(quantile) * _sd(gains) / math.sqrt(len(gains))
        summary[label] |= {'gain': gain, 'low': gain - half}
        summary[label]['high'] = gain + half
    return summary


def _sd(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else math.nan


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
    first = next(iter(values))
    rows = []
    for label, row in summarise(values).items():
        ratios = [b / a for a, b in zip(times[first], times[label])]
        rows.append(
            {
                'method': label,
                **row,
                'time_ratio': statistics.fmean(ratios),
                **{f'seed {s}': v for s, v in zip(seeds, values[label])},
            }
        )
    lines = [
        f'| | {metric} | sd | gain over {first} (95 % CI) | time a step |',
        '|---|---|---|---|---|',
    ]
    for row in rows:
        gain = ''
        if 'gain' in row:
            gain = f'{row["gain"]:+.2f}'
            if not math.isnan(row['low']):
                gain += f' ({row["low"]:+.2f} to {row["high"]:+.2f})'
        sd = '' if math.isnan(row['sd']) else f'{row["sd"]:.2f}'
        lines.append(
            f'| {row["method"]} | {row["mean"]:.2f} | {sd} | {gain} '
            f'| {row["time_ratio"]:.2f}x |'
        )
    markdown = '\n'.join([*lines, '', note, ''])

    prefix.parent.mkdir(parents=True, exist_ok=True)
    with_ending = {
        end: Path(f'{prefix}.{end}') for end in ('md', 'csv', 'png')
    }
    with_ending['md'].write_text(markdown)
    with with_ending['csv'].open('w', newline='') as file:
        columns = dict.fromkeys(key for row in rows[::-1] for key in row)
        writer = csv.DictWriter(file, list(columns), lineterminator='\n')
        writer.writeheader()
        writer.writerows(
            {
                k: round(v, 4) if isinstance(v, float) else v
                for k, v in r.items()
            }
            for r in rows
        )
    plot(values, metric, with_ending['png'])
    return markdown


def plot(
    values: Mapping[str, Sequence[float]], metric: str, out: Path
) -> None:
    """Draw a dot a seed, beside it the paired gains and their interval."""
    labels = list(values)
    summary = summarise(values)
    figure = Figure(
        figsize=(9, 1.2 + 0.45 * len(labels)), dpi=120, layout='constrained'
    )
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    for row, label in enumerate(labels):
        colour = PALETTE[row % len(PALETTE)]
        dots = {'color': colour, 'alpha': 0.55, 'ls': '', 'marker': 'o'}
        column = values[label]
        left.plot(column, [row] * len(column), markersize=5, **dots)
        left.plot(
            summary[label]['mean'], row, color=colour, marker='|', ms=18, mew=2
        )
        if row == 0:
            continue
        gains = [b - a for a, b in zip(values[labels[0]], column)]
        right.plot(gains, [row] * len(gains), markersize=5, **dots)
        right.plot(
            summary[label]['gain'], row, color=colour, marker='|', ms=18, mew=2
        )
        low, high = summary[label]['low'], summary[label]['high']
        right.plot([low, high], [row, row], color=colour, linewidth=2)
    right.axvline(0, color='0.4', linewidth=1)
    left.set_yticks(range(len(labels)), labels)
    left.set_ylim(len(labels) - 0.5, -0.5)
    left.set_xlabel(f'{metric} (last epoch)')
    right.set_xlabel(f'gain over {labels[0]}')
    left.set_title('a dot a seed, bar: mean', fontsize=10, loc='left')
    right.set_title(
        'difference by seed, bar: mean, line: 95 % interval',
        fontsize=10,
        loc='left',
    )
    for axes in (left, right):
        axes.grid(axis='x', color='0.9')
        axes.set_axisbelow(True)
        for side in ('top', 'right', 'left'):
            axes.spines[side].set_visible(False)
        axes.tick_params(axis='y', length=0)
    figure.savefig(out)


def read_variants(args: argparse.Namespace) -> dict[str, tuple[str, dict]]:
    """``{label: (config, options)}`` from the command line, in order."""
    labels = args.labels or [Path(config).stem for config in args.configs]
    if len(labels) != len(args.configs):
        raise SystemExit(
            f'--labels names {len(labels)} methods, but there are '
            f'{len(args.configs)} configs: give one label each.'
        )
    variants = [
        (label, (config, {})) for label, config in zip(labels, args.configs)
    ]
    if args.variants:
        variants += runpy.run_path(args.variants)['variants'].items()
    if not variants:
        raise SystemExit('Give at least one CONFIG, or --variants FILE.')
    folders = [_folder_name(label) for label, _ in variants]
    if len(set(folders)) < len(folders):
        raise SystemExit(f'Each method needs a label of its own: {folders}')
    return dict(variants)


def _folder_name(label: str) -> str:
    return re.sub(r'[^\w.-]+', '-', label).strip('-')


def _texts(value: object, key: str) -> Iterator[tuple[str, str]]:
    """All strings in nested dicts, by dotted key."""
    if isinstance(value, str):
        yield key, value
    for part, item in value.items() if isinstance(value, dict) else ():
        yield from _texts(item, f'{key}.{part}')


def evaluated_on(config: Config, split: str) -> dict[str, str]:
    """Options with which a config evaluates another split of its data.

    Args:
        config (Config): A config of the digit scenes, that validates on
            ``test``: so it says at the end of the paths of validation data.
        split (str): What is to stand there.

    Returns:
        dict[str, str]: Options by key.

    Raises:
        SystemExit: If no path of the config ends so.
    """
    options = {}
    for root in ('val_dataloader', 'val_evaluator'):
        for key, path in _texts(config.get(root), root):
            head, tail = os.path.split(path.rstrip('/'))
            moved = re.sub('(?<![a-z])test(?![a-z])', split, tail)
            if moved != tail and re.search('ann_file|data_prefix', key):
                options[key] = os.path.join(head, moved)
    if not options:
        raise SystemExit(
            f'--split {split}: validation of this config reads no path that '
            f"ends in 'test', so that there is no {split} split of it."
        )
    return options


def plan(
    variants: Mapping[str, tuple[str, Mapping]],
    seeds: Sequence[int],
    work_dir: Path,
    split: str,
    teacher_checkpoint: str | None = None,
    cfg_options: Mapping | None = None,
) -> dict[tuple[str, int], Run]:
    """The runs to do, by label and seed, all methods of a seed together."""
    runs = {}
    for seed in seeds:
        for label, (config, own) in variants.items():
            options = dict(cfg_options or {})
            options['randomness.seed'] = seed
            settings = load_config(config)
            if split != 'test':
                options |= evaluated_on(settings, split)
            if teacher_checkpoint and 'teacher' in settings.model:
                options['model.teacher.checkpoint'] = teacher_checkpoint
            folder = work_dir / _folder_name(label) / f'seed_{seed}'
            runs[label, seed] = Run(config, folder, {**options, **own})
    return runs


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('configs', nargs='*', metavar='CONFIG')
    parser.add_argument('--labels', nargs='+', help='names, one a CONFIG')
    parser.add_argument('--variants', help='a file with named variants')
    parser.add_argument(
        '--seeds', type=int, default=5, help='seeds 0 to N - 1; default: 5'
    )
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/compare_methods')
    )
    parser.add_argument(
        '--split',
        choices=['test', 'tuning'],
        default='test',
        help='digit scenes to evaluate on: choose settings on tuning, report '
        'test; default: test',
    )
    parser.add_argument(
        '--teacher-checkpoint', help="every distiller's teacher weights"
    )
    parser.add_argument(
        '--metric',
        help='a logged one that is better the higher; default: '
        + ', '.join(METRICS.values())
        + ', as the package of the first config has it; of coco/..., '
        'fractions, a hundred times the value is taken',
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='for all runs'
    )
    parser.add_argument(
        '--jobs',
        type=int,
        default=1,
        choices=[1, 2],
        help='runs at once; 2 gives each one thread. Times are comparable '
        'within one choice only; default: 1',
    )
    parser.add_argument(
        '--out', type=Path, help='prefix; default: WORK_DIR/SPLIT'
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    variants, seeds = read_variants(args), range(args.seeds)
    first = next(iter(variants))
    if args.metric is None:
        package = load_config(variants[first][0]).get('default_scope')
        args.metric = METRICS.get(package, METRICS['mmpretrain'])
    runs = plan(
        variants,
        seeds,
        args.work_dir / args.split,
        args.split,
        args.teacher_checkpoint,
        args.cfg_options,
    )
    threads = 1 if args.jobs > 1 else None
    results, failures = {}, []
    with ThreadPoolExecutor(args.jobs) as pool:
        started = {
            pool.submit(train, run, threads): key for key, run in runs.items()
        }
        try:
            for future in as_completed(started):
                label, seed = key = started[future]
                try:
                    results[key] = result = future.result()
                    figure = metric_of(result, args.metric)
                except (ChildFailed, OtherSettings) as error:
                    failures.append(error)
                    print(f'{label}, seed {seed}: FAILED\n{error}', flush=True)
                    continue
                print(
                    f'[{len(results)}/{len(runs)}] {label}, seed {seed}: '
                    f'{args.metric} {figure:.2f} '
                    f'({result["seconds"]:.0f} s)',
                    flush=True,
                )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in list(_CHILDREN):
                child.terminate()
            raise
    if failures:
        raise SystemExit(
            f'{len(failures)} of {len(runs)} runs failed, so there is no '
            'table. Start the same command again: finished runs are kept.'
        )
    values, times = (
        {
            label: [get(results[label, seed]) for seed in seeds]
            for label in variants
        }
        for get in (
            lambda result: metric_of(result, args.metric),
            lambda result: result['seconds_per_step'],
        )
    )
    resumed = sum(result['resumed'] for result in results.values())
    note = (
        f'{len(seeds)} seeds, {args.split} scenes, last epoch (not the best '
        'one); gain: mean difference to the run of the same seed, interval '
        "by Student's t over seeds; time a step: median over a run, as a "
        f'ratio to {first}.'
        + (f' {resumed} runs were resumed.' if resumed else '')
        + f'\n\n    python {shlex.join(sys.argv)}'
    )
    out = args.out or args.work_dir / args.split
    print(write_tables(values, times, seeds, args.metric, note, out))
    print(f'Written: {out}.md, {out}.csv, {out}.png')


if __name__ == '__main__':
    # Where only this process is told to stop, its children are stopped by it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\nStopped. Start the same command again to go on.')
