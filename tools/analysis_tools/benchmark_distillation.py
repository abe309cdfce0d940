r"""Time a distillation and its parts, and what they need of memory.

    python tools/analysis_tools/benchmark_distillation.py CONFIG
    python tools/analysis_tools/benchmark_distillation.py CONFIG --teacher
    python tools/analysis_tools/benchmark_distillation.py --variants FILE
    python tools/analysis_tools/benchmark_distillation.py --cases
    python tools/analysis_tools/benchmark_distillation.py --options
    python tools/analysis_tools/benchmark_distillation.py --growth
    python tools/analysis_tools/benchmark_distillation.py --overhead

CONFIG is a distiller's: its student, its teacher, each entry and the whole
step are timed on random images and annotations of the student's task; no data,
no checkpoint is read. --teacher times its teacher alone, with more and more of
the switches that make it faster. --variants times a step of each method of a
FILE that compare_methods.py takes. --cases times DiffKD's neck alone at the
sizes of the paper's tasks, --options with what makes it cheaper. --growth
varies one quantity at a time and puts the line beside it that the arithmetic
predicts. --overhead compares a step of the distiller with the same step
written by hand, on networks of negligible size.

What is compared runs in turn. Times are medians, with the quartiles beside
them; on a GPU they are its own, by events. Forward and backward are timed, an
optimizer's step is not. Memory is the peak of one run above what was there
before it. MACs are counted as get_flops.py counts them, but of what was run,
backward pass included.

--reference DIR times the DiffKD module of a checkout of
github.com/hunto/image_classification_sota on the same tensors, in turn with
ours. It is imported from there, and runs in float32 alone.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger

from mmdiffkd.analysis.benchmark_neck import (
    benchmark_cases,
    benchmark_growth,
    benchmark_options,
    import_reference,
)
from mmdiffkd.analysis.benchmark_report import plot, split_document
from mmdiffkd.analysis.benchmark_step import (
    benchmark_distiller,
    benchmark_methods,
    benchmark_overhead,
    benchmark_teacher,
)
from mmdiffkd.analysis.command_line import config_parser, read_config
from mmdiffkd.analysis.comparison import read_variants
from mmdiffkd.analysis.timing import Settings, environment
from mmdiffkd.analysis.training import Run
from mmdiffkd.utils import is_distiller
from mmdiffkd.utils.freed_memory import keep_freed_memory

HALVES = {'bf16': torch.bfloat16, 'fp16': torch.float16}
#: What needs no CONFIG.
ALONE = ('cases', 'options', 'growth', 'overhead')


def read_distiller(args: argparse.Namespace) -> Config:
    config = read_config(args)
    if not is_distiller(config.model):
        raise SystemExit(
            'CONFIG is a plain recipe, of which there are no parts to '
            "compare: give a distiller's, model=dict("
            "type='mmdiffkd.Distiller', ...)."
        )
    if args.input_size:
        height, width = args.input_size[0], args.input_size[-1]
        config.model.input_size = (height, width)
    if args.batch_size:
        config.train_dataloader.batch_size = args.batch_size
    return config


def benchmark(
    args: argparse.Namespace, settings: Settings
) -> tuple[dict, str]:
    """Measure what the command line asks for."""
    if args.variants:
        variants = read_variants(args.variants)
        configs = {
            label: Run(config, Path(), options).settings
            for label, (config, options) in variants.items()
        }
        return benchmark_methods(configs, settings)
    if args.cases:
        return benchmark_cases(settings, args.runs)
    if args.options:
        return benchmark_options(settings)
    if args.growth:
        return benchmark_growth(settings)
    if args.overhead:
        return benchmark_overhead(settings)
    measure = benchmark_teacher if args.teacher else benchmark_distiller
    return measure(read_distiller(args), settings)


def parse_args() -> argparse.Namespace:
    parser = config_parser(
        __doc__, nargs='?', help="a distiller's: a path, or package::name"
    )
    for what in ('teacher', *ALONE):
        parser.add_argument(f'--{what}', action='store_true')
    parser.add_argument(
        '--variants', metavar='FILE[:NAME]', help='as of compare_methods.py'
    )
    parser.add_argument('--batch-size', type=int, help="default: the config's")
    parser.add_argument(
        '--input-size',
        type=int,
        nargs='+',
        metavar='PIXELS',
        help="height and width; default: the distiller's input_size, else "
        'the size usual for the task',
    )
    parser.add_argument(
        '--repetitions', type=int, default=10, help='default: 10'
    )
    parser.add_argument(
        '--runs',
        type=int,
        default=1,
        help='of --cases: build and measure so often, and report the median '
        'of the runs; default: 1',
    )
    parser.add_argument(
        '--amp', choices=HALVES, help='automatic mixed precision of ours'
    )
    parser.add_argument(
        '--compile',
        action='store_true',
        help='torch.compile of ours; necks and teachers beside eager ones',
    )
    parser.add_argument('--threads', type=int, help='of the CPU')
    parser.add_argument(
        '--device',
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='default: cuda where there is one, else cpu',
    )
    parser.add_argument('--reference', type=Path, metavar='DIR')
    parser.add_argument('--json', type=Path, metavar='FILE')
    parser.add_argument('--plot', type=Path, metavar='FILE.png')
    parser.add_argument(
        '--into',
        nargs=2,
        metavar=('FILE.md', 'NAME'),
        help='put the tables between the lines <!-- NAME:begin --> and '
        '<!-- NAME:end --> of a document',
    )
    args = parser.parse_args()
    chosen = [
        args.config,
        args.variants,
        *(getattr(args, what) for what in ALONE),
    ]
    if sum(map(bool, chosen)) != 1:
        parser.error(
            f'give a CONFIG, --variants FILE, or one of --{", --".join(ALONE)}'
        )
    if args.teacher and not args.config:
        parser.error('--teacher needs a CONFIG')
    if args.repetitions < 1 or args.runs < 1:
        parser.error('--repetitions and --runs must be 1 or more')
    if len(args.input_size or [0]) > 2:
        parser.error('--input-size takes a height and a width, or one of both')
    return args


def main() -> None:
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        if args.into:
            split_document(*args.into)
        reference = args.reference and import_reference(args.reference)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))
    MMLogger.get_instance('benchmark', log_level='WARNING')
    torch.manual_seed(0)
    device, amp = torch.device(args.device), HALVES.get(args.amp)
    settings = Settings(device, args.repetitions, amp, args.compile, reference)
    try:
        result, text = benchmark(args, settings)
    except ValueError as error:
        sys.exit(str(error))
    facts = result['environment'] = environment(settings)
    text += f'\n\n{facts["device"]}, PyTorch {facts["torch"]}.'
    print(text)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + '\n')
    if args.plot:
        plot(result, args.plot)
    if args.into:
        before, after = split_document(*args.into)
        Path(args.into[0]).write_text(f'{before}{text}\n{after}')


if __name__ == '__main__':
    keep_freed_memory()
    main()
