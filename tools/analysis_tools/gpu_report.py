"""Report what a GPU does: tests, necks, the step, waits, memory.

    python tools/analysis_tools/gpu_report.py --out DIR

Each section runs in a process with a time limit; all together take 9 minutes
at most. DIR gets gpu_report.md, gpu_report.json and gpu_report.log. Where
OpenMMLab's packages are missing, tools/misc/gpu_report.sh brings them.

--reference DIR measures the DiffKD module of a checkout of
github.com/hunto/image_classification_sota beside ours. --device cpu --small
is a dry run, whose figures mean nothing.
"""

import argparse
import math
import os
import sys
from pathlib import Path

import torch

from mmdiffkd.analysis.benchmark_neck import import_reference
from mmdiffkd.analysis.gpu_report import (
    SECTIONS,
    TOTAL,
    write_report,
    write_rows,
)
from mmdiffkd.analysis.timing import Settings

# Seconds of a section with small sizes, on a CPU that does much else.
SLOWEST = 1800
ROOT = Path(__file__).resolve().parents[2]
INTRODUCTION = """\
# GPU report

{kind}

- Forward and backward of random data and weights, without the optimizer.
- bf16 is autocast. float32 leaves PyTorch's own switches as they are.
- *Captured* is the replay of a CUDA graph.
- Peak memory is that of one run above what was allocated before. For a
  captured run it is that of the capture.
- *Waits of the host* are the host-device synchronisations of one run.
- {reference}
- Of RetinaNet the necks are measured, not the whole step: mmdet needs mmcv's
  compiled operators."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--out', type=Path, metavar='DIR')
    parser.add_argument('--reference', type=Path, metavar='DIR')
    parser.add_argument('--device', choices=['cuda', 'cpu'], default='cuda')
    parser.add_argument('--small', action='store_true', help='small sizes')
    parser.add_argument(
        '--section',
        nargs=2,
        metavar=('TITLE', 'FILE'),
        help='append the rows of one section to a file as JSON, in this '
        'process and without a limit',
    )
    args = parser.parse_args()
    if bool(args.out) == bool(args.section):
        parser.error('give --out, or --section')
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error(
            '--device cuda: PyTorch finds no GPU. A dry run is '
            '--device cpu --small'
        )
    return args


def main() -> None:
    args = parse_args()
    reference = None
    try:
        if args.reference:
            args.reference = args.reference.resolve()
            reference = import_reference(args.reference)
    except FileNotFoundError as error:
        sys.exit(str(error))
    if args.section:
        title, file = args.section
        settings = Settings(
            torch.device(args.device),
            repetitions=1 if args.small else 10,
            backend='eager' if args.small else 'inductor',
            reference=reference,
        )
        write_rows(title, Path(file), settings, args.small)
        return
    out = args.out.resolve()
    os.chdir(ROOT)
    command = [sys.executable, __file__, '--device', args.device]
    command += ['--small'] * args.small
    if args.reference:
        command += ['--reference', str(args.reference)]
    introduction = INTRODUCTION.format(
        kind='A dry run with small sizes, whose figures mean nothing:'
        if args.small
        else 'What was measured:',
        reference='*Released* is the DiffKD module of '
        'hunto/image_classification_sota.'
        if args.reference
        else 'The released DiffKD module was not given.',
    )
    commands = {
        title: (
            [*command, '--section', title],
            SLOWEST if args.small else seconds,
        )
        for title, (seconds, _) in SECTIONS.items()
    }
    total = math.inf if args.small else TOTAL
    results = write_report(commands, out, introduction, total)
    for title, result in results.items():
        print(f'{title}: {result["problem"] or "done"}')
    print(out / 'gpu_report.md')


if __name__ == '__main__':
    main()
