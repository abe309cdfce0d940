"""The whole journey on a small data set, in minutes on two CPU cores.

Writes the digit scenes, trains a teacher, a student alone and the same
student with DiffKD, evaluates all three, and draws what happened. Everything
lands in ``work_dirs/demo``, ``demo-det`` or ``demo-seg``. A second run re-uses
finished trainings.

    python tools/misc/demo.py [--task {cls,det,seg}] [--force]
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

from mmdiffkd.analysis.demo import TASKS, run_demo
from mmdiffkd.analysis.training import ChildFailed, OtherSettings

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--task',
        choices=list(TASKS),
        default='cls',
        help='classification, detection or segmentation; default: cls',
    )
    parser.add_argument(
        '--force', action='store_true', help='train everything again'
    )
    args = parser.parse_args()
    task = TASKS[args.task]
    os.chdir(ROOT)
    if args.force:
        shutil.rmtree(task.work_dir, ignore_errors=True)

    run_demo(task)


if __name__ == '__main__':
    try:
        main()
    except ChildFailed as error:
        sys.exit(f'\n{error}')
    except OtherSettings as error:
        sys.exit(f'\n{error}\nOr train everything again: demo.py --force')
    except KeyboardInterrupt:
        sys.exit('\nStopped. Start it again to go on from here.')
