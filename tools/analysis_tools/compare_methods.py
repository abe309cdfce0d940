r"""Train several configs over several seeds and compare them in pairs.

Each run is a process of its own (``tools/train.py``) with a folder of its
own, so that a crash or a stop loses one run at most: start the same command
again, and finished runs are read, a begun one is resumed from its last
checkpoint, or restarted where it has none yet. The first config is what the
others are compared with. Reported is a metric of the *last* checkpoint, never
of the best one, on the test data. With ``--split val`` it is the last
validation: choose settings on that, and report test.

    python tools/analysis_tools/compare_methods.py \
        STUDENT_ALONE.py DISTILLED.py --labels student DiffKD --seeds 5 \
        --teacher-checkpoint TEACHER.pth --out work_dirs/compare/table

writes ``table.md``, ``table.csv`` and ``table.png``. A grid of settings comes
from a file (``--variants grid.py``) that defines::

    variants = {
        'student': ('configs/a.py', {}),
        'weight 5': ('configs/b.py', {'model.distill.x.weight': 5.0}),
    }

A file may define several such dicts, and ``--variants grid.py:val`` takes the
one that is called ``val``.

A table that was written before counts as done: with ``--known table.csv`` its
seeds are not trained again, so that five more seeds need no old weights.

A text in a variant may hold {seed}:
``'load_from': 'before/seed_{seed}/epoch_4.pth'`` begins each run with what
another comparison has trained with its seed.
"""

import argparse
import shlex
import signal
import sys
import warnings
from pathlib import Path

from filelock import FileLock, Timeout
from mmengine.config import DictAction

from mmdiffkd.analysis.comparison import (
    METRICS,
    SPLITS,
    choose_rows,
    default_metric,
    metric_of,
    plan,
    run_all,
)
from mmdiffkd.analysis.comparison_tables import read_table, write_tables
from mmdiffkd.analysis.training import ChildFailed


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('configs', nargs='*', metavar='CONFIG')
    parser.add_argument('--labels', nargs='+', help='names, one a CONFIG')
    parser.add_argument(
        '--variants',
        metavar='FILE[:NAME]',
        help='a file with a dict of variants; default NAME: variants',
    )
    parser.add_argument(
        '--rows',
        metavar='TEXT',
        help='only what has this in its label; default: everything',
    )
    parser.add_argument(
        '--seeds', type=int, default=5, help='seeds 0 to N - 1; default: 5'
    )
    parser.add_argument(
        '--known',
        type=Path,
        metavar='CSV',
        help='a table of this tool of the same rows on the same split: what '
        'is in it is not trained again; default: none',
    )
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/compare_methods')
    )
    parser.add_argument(
        '--split',
        choices=[*SPLITS, 'tuning'],
        metavar='{val,test}',
        default='test',
        help='data to evaluate on: choose settings on val, report test; '
        'default: test',
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
    args = parser.parse_args()
    if args.split == 'tuning':
        warnings.warn(
            '--split tuning is the old name of --split val, and goes away '
            'with the next version: write --split val.',
            FutureWarning,
            stacklevel=2,
        )
        args.split = 'val'
    return args


def main() -> None:
    args = parse_args()
    seeds = range(args.seeds)
    try:
        variants = choose_rows(
            args.configs, args.labels, args.variants, args.rows
        )
        known = read_table(args.known) if args.known else {}
        first = next(iter(variants))
        metric = args.metric or default_metric(variants[first][0])
        runs = plan(
            variants,
            seeds,
            args.work_dir,
            args.teacher_checkpoint,
            args.cfg_options,
        )
        to_do = {key: run for key, run in runs.items() if key not in known}
        if known and len(to_do) == len(runs):
            has = ', '.join(dict.fromkeys(label for label, _ in known))
            raise ValueError(
                f'--known {args.known}: none of these rows and seeds is in '
                f'it. Its rows are {has}.'
            )
        args.work_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(args.work_dir / 'compare_methods.lock', timeout=0):
            results = run_all(to_do, args.split, metric, args.jobs)
    except Timeout:
        sys.exit(
            f'--work-dir {args.work_dir}: another comparison is at work '
            'there. Wait until it has ended, or choose another folder.'
        )
    except (ChildFailed, ValueError) as error:
        sys.exit(str(error))
    figures = known | {
        key: metric_of(result, metric) for key, result in results.items()
    }
    values = {
        label: [figures[label, seed] for seed in seeds] for label in variants
    }
    times = {
        label: {
            seed: results[label, seed]['seconds_per_step']
            for seed in seeds
            if (label, seed) in results
        }
        for label in variants
    }
    resumed = sum(result['resumed'] for result in results.values())
    taken = len(runs) - len(to_do)
    note = (
        f'{len(seeds)} seeds, {args.split} scenes, last epoch (not the best '
        'one); gain: mean difference to the run of the same seed, interval '
        "by Student's t over seeds; p: of the same test, corrected for the "
        f'number of methods (Holm); time a step: median over a run, as a '
        f'ratio to {first}.'
        + (f' {resumed} runs were resumed.' if resumed else '')
        + (f' {taken} figures are those of {args.known}.' if taken else '')
        + f'\n\n    python {shlex.join(sys.argv)}'
    )
    out = args.out or args.work_dir / args.split
    print(write_tables(values, times, seeds, metric, note, out))
    print(f'Written: {out}.md, {out}.csv, {out}.png')


if __name__ == '__main__':
    # Where only this process is told to stop, its children are stopped by it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\nStopped. Start the same command again to go on.')
