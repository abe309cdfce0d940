"""One page about a run, or about several side by side.

    python tools/analysis_tools/report.py WORK_DIR [OTHER ...] [--out FILE]

The page is one file of HTML that opens offline: the curves of all that was
logged, student and teacher by class, their features, images about which they
disagree, what they cost, the config against the plain recipe, and the
environment. What is missing in a work directory is said on the page.

The networks run on images of the test data, or with --split val, of the
validation data. --images 0 leaves that out and takes seconds.
"""

import argparse
import contextlib
import sys
from pathlib import Path

from mmdiffkd.analysis.comparison import SPLITS
from mmdiffkd.analysis.report import write_report


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'work_dirs',
        nargs='+',
        type=Path,
        metavar='WORK_DIR',
        help='where the logs and checkpoints of a run are',
    )
    parser.add_argument(
        '--out',
        type=Path,
        metavar='FILE',
        help='the page. Defaults to report.html in the first WORK_DIR.',
    )
    parser.add_argument(
        '--split',
        choices=SPLITS,
        default='test',
        help='the data: that of val_dataloader or of test_dataloader. '
        'Defaults to test.',
    )
    parser.add_argument(
        '--images',
        type=int,
        default=2000,
        metavar='N',
        help='the most images that the networks see, spread over the data. '
        'Defaults to 2000.',
    )
    parser.add_argument(
        '--force',
        action='store_true',
        help='replace the page if there is one',
    )
    args = parser.parse_args()
    if args.images < 0:
        parser.error('--images must be 0 or more')
    try:
        # What building a model prints is not what the command says.
        with contextlib.redirect_stdout(sys.stderr):
            path = write_report(
                args.work_dirs, args.out, args.split, args.images, args.force
            )
    except (FileExistsError, FileNotFoundError, ValueError) as error:
        sys.exit(str(error))
    print(path)


if __name__ == '__main__':
    main()
