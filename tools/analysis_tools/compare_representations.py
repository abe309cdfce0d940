r"""How alike student and teacher see the test data, and how confidently.

    python tools/analysis_tools/compare_representations.py \
        CONFIG CHECKPOINT [CHECKPOINT ...] [--entry NAME] [--out FILE.json]

CONFIG is a distiller's whose student and teacher classify; each CHECKPOINT is
a student of that architecture, of a run with or without distillation. Found
are, over the test data (with ``--split val``, the validation data):

- linear CKA between the student's and the teacher's features at the taps of
  an entry, averaged over positions (1: the same up to a rotation and a scale);
- the expected calibration error (15 bins of equal width) and the accuracy of
  the students and the teacher (unless it has no head, or other classes).

Nothing is trained, and memory does not grow with the data.
"""

import contextlib
import json
import sys
from pathlib import Path

from mmdiffkd.analysis.command_line import config_parser, read_config
from mmdiffkd.analysis.comparison import SPLITS
from mmdiffkd.analysis.representations import compare, describe


def main() -> None:
    parser = config_parser(__doc__)
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
    args = parser.parse_args()
    # What building a model prints stays out of the table.
    with contextlib.redirect_stdout(sys.stderr):
        result = compare(
            read_config(args), args.checkpoints, args.entry, args.split
        )
    print(describe(result))
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    main()
