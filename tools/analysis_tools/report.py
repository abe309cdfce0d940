"""One page about a run, or about several side by side.

    python tools/analysis_tools/report.py WORK_DIR [OTHER ...] [--out FILE]

The page is one file of HTML that opens offline: the curves of all that was
logged, what the networks cost, the config against the plain recipe, and the
environment. What is missing in a work directory is said on the page.
"""

import argparse
import contextlib
import sys
from pathlib import Path

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
        '--force',
        action='store_true',
        help='replace the page if there is one',
    )
    args = parser.parse_args()
    try:
        # What building a model prints is not what the command says.
        with contextlib.redirect_stdout(sys.stderr):
            path = write_report(args.work_dirs, args.out, args.force)
    except (FileExistsError, FileNotFoundError, ValueError) as error:
        sys.exit(str(error))
    print(path)


if __name__ == '__main__':
    main()
