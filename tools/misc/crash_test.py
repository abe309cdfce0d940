"""Kill a training run again and again, and see that nothing is lost.

Trains CONFIG once without interruption. Then trains it again, in processes
that are killed (SIGKILL) at random moments and resumed with --resume. Compares
the results with the first, bit for bit: student, necks and optimizer. A
finished run is followed by another, until there were enough kills. Every
second kill aims at the moment in which a checkpoint is being written. After
each kill, every checkpoint that lies there has to be complete.

    python tools/misc/crash_test.py [CONFIG] [--kills 50]

Without CONFIG, DiffKD on a thousand digit scenes: two persistent workers,
random crops, DropPath, a validation an epoch, the last and the best checkpoint
kept. This is a test, and needs the folder tests/ of the repository.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONFIG = (
    'configs/diffkd/'
    'diffkd_backbone_resnet14-w24_resnet14-w4_1xb64-4e_digit-scenes.py'
)
#: What makes that config small, and random in every part.
SMALL = [
    'model.teacher.checkpoint=None',
    'model.student.init_cfg=None',
    'model.student.backbone.drop_path_rate=0.2',
    'train_dataloader.dataset.dataset.data_prefix=val',
    'val_dataloader.dataset.data_prefix=val',
    'train_cfg.max_epochs=6',
    'train_cfg.val_interval=1',
]


def main() -> None:
    parser = argparse.ArgumentParser(description='Kill training runs.')
    parser.add_argument('config', nargs='?', help='a path, or package::name')
    parser.add_argument(
        '--kills', type=int, default=50, help='how many. Defaults to 50.'
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/crash_test'),
        help='emptied first. Defaults to %(default)s.',
    )
    parser.add_argument(
        '--fork',
        action='store_true',
        help='fork the training processes off this one, which has imported '
        'everything, rather than start each anew: faster, by their imports',
    )
    args = parser.parse_args()
    sys.path.append(str(ROOT / 'tests'))
    from killed_runs import crash_test

    if args.fork:
        import mmpretrain.models  # noqa: F401

        import mmdiffkd.engine  # noqa: F401
    config = args.config or str(ROOT / CONFIG)
    options = [] if args.config else SMALL
    crash_test(config, options, args.work_dir, args.kills, args.fork)


if __name__ == '__main__':
    main()
