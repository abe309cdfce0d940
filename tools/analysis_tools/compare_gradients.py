"""How near the distance's gradient with few `grad_steps` is to the whole one.

    python tools/analysis_tools/compare_gradients.py CONFIG CHECKPOINT

CONFIG is a distiller's with a DiffKD neck, CHECKPOINT one of its training,
with the necks in it. On batches of its training data the distance's gradient
is taken with 1, 2, ... denoising steps that pass gradients on, with the same
noise each time, and compared with the one through all steps: by its cosine and
by its length, for the student's weights and for the denoiser's. Nothing is
trained.
"""

import argparse
import contextlib
import sys

from mmengine.config import DictAction

from mmdiffkd.analysis.gradients import COLUMNS, compare
from mmdiffkd.analysis.tables import table
from mmdiffkd.utils import load_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='a path, or package::name')
    parser.add_argument('checkpoint', help='a path or a URL')
    parser.add_argument(
        '--batches',
        type=int,
        default=8,
        help='how many batches are averaged over (default: 8)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    config = load_config(args.config)
    if args.cfg_options is not None:
        config.merge_from_dict(args.cfg_options)
    # What building a model prints stays out of the table.
    with contextlib.redirect_stdout(sys.stderr):
        rows = compare(config, args.checkpoint, args.batches)
    print(table(rows, COLUMNS))


if __name__ == '__main__':
    main()
