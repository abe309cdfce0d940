r"""How alike student and teacher see the test data, and how confidently.

    python tools/analysis_tools/compare_representations.py \
        CONFIG CHECKPOINT [CHECKPOINT ...] [--entry NAME] [--out FILE.json]

CONFIG is a distiller's whose student and teacher classify; each CHECKPOINT is
a student of that architecture, of a run with or without distillation. Found
are, over the test data (with ``--split val``, the validation data):

- linear CKA between the student's and the teacher's features at the taps of
  an entry, averaged over positions (1: the same up to a rotation and a scale);
- the expected calibration error (15 bins of equal width) and the accuracy of
  the students and the teacher.

Nothing is trained, and memory does not grow with the data.
"""

import argparse
import contextlib
import json
import sys
from pathlib import Path

from mmengine.config import DictAction

from mmdiffkd.analysis.comparison import SPLITS
from mmdiffkd.analysis.representations import compare, describe
from mmdiffkd.utils import load_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='a path, or package::name')
    parser.add_argument(
        'checkpoints', nargs='+', metavar='checkpoint', help='a path or a URL'
    )
    parser.add_argument(
        '--entry',
        help='the entry of `model.distill` whose taps are compared. '
        'Defaults to the first.',
    )
    parser.add_argument(
        '--split',
        choices=SPLITS,
        default='test',
        help='the data: that of val_dataloader or of test_dataloader. '
        'Defaults to test.',
    )
    parser.add_argument(
        '--out', type=Path, metavar='FILE', help='write the numbers as JSON'
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
        result = compare(config, args.checkpoints, args.entry, args.split)
    print(describe(result))
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    main()
