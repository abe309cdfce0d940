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
kept.
"""

import argparse
import multiprocessing
import os
import random
import runpy
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

from mmdiffkd.safety.atomic_files import is_complete
from mmdiffkd.utils import read_checkpoint

ROOT = Path(__file__).resolve().parents[2]
TRAIN = str(ROOT / 'tools/train.py')
CONFIG = (
    'configs/diffkd/'
    'diffkd_backbone_resnet14-w24_resnet14-w4_1xb64-20e_digit-scenes.py'
)
#: What makes that config small, and random in every part.
SMALL = [
    'model.teacher.checkpoint=None',
    'model.student.backbone.drop_path_rate=0.2',
    'train_dataloader.dataset.data_prefix=val',
    'val_dataloader.dataset.data_prefix=val',
    'train_cfg.max_epochs=6',
    'train_cfg.val_interval=1',
]
ALWAYS = [
    'default_hooks.checkpoint.type=mmdiffkd.CheckpointHook',
    'default_hooks.checkpoint.exact_resume=True',
    'default_hooks.checkpoint.max_keep_ckpts=1',
    'default_hooks.checkpoint.save_best=auto',
]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Kill training runs.')
    parser.add_argument('config', nargs='?', help='a path, or package::name')
    parser.add_argument(
        '--kills', type=int, default=50, help='how many. Defaults to 50.'
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/crash_test'),
        help='emptied first. Defaults to work_dirs/crash_test.',
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='of the moments. Defaults to 0.'
    )
    parser.add_argument(
        '--fork',
        action='store_true',
        help='fork the training processes off this one, which has imported '
        'everything, rather than start each anew: faster, by their imports',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='settings of the config, as tools/train.py takes them',
    )
    return parser.parse_args()


class Training:
    """A process that runs tools/train.py, output going to a file.

    Args:
        arguments (list[str]): What follows on the command line.
        log (Path): The file, which is appended to.
        fork (bool): Fork this process rather than start a new one.
    """

    def __init__(self, arguments: list[str], log: Path, fork: bool) -> None:
        self.log = log
        if fork:
            self.process = multiprocessing.get_context('fork').Process(
                target=_train, args=(arguments, log)
            )
            self.process.start()
            self.pid = self.process.pid
        else:
            with log.open('ab') as file:
                self.process = subprocess.Popen(
                    [sys.executable, TRAIN, *arguments],
                    stdout=file,
                    stderr=file,
                )
            self.pid = self.process.pid

    @property
    def status(self) -> int | None:
        """The exit status, None while it runs."""
        if isinstance(self.process, subprocess.Popen):
            return self.process.poll()
        return self.process.exitcode

    def kill(self) -> None:
        self.process.kill()
        while self.status is None:
            time.sleep(0.001)

    def finish(self) -> None:
        while self.status is None:
            time.sleep(0.05)
        self.check()

    def check(self) -> None:
        """See that the run, if it has ended, has ended without an error."""
        if self.status:
            tail = self.log.read_text(errors='replace')[-3000:]
            raise SystemExit(
                f'{tail}\nTraining ended with status {self.status}; the '
                f'whole output is in {self.log}.'
            )


def _train(arguments: list[str], log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.argv = [TRAIN, *arguments]
    runpy.run_path(TRAIN, run_name='__main__')


def temporary_files(folder: Path) -> list[Path]:
    """Checkpoints that are being written, or were when the writer died."""
    return list(folder.glob('.*.pth.*.tmp'))


def wait_for_write(training: Training, folder: Path, skip: int) -> None:
    """Return while a checkpoint is being written, after so many others."""
    there = bool(temporary_files(folder))
    while training.status is None:
        before, there = there, bool(temporary_files(folder))
        if there and not before:
            if not skip:
                return
            skip -= 1


def wait_for_moment(training: Training, seconds: float) -> None:
    """Return after a time, or when the run ends."""
    end = time.monotonic() + seconds
    while training.status is None and time.monotonic() < end:
        time.sleep(0.002)


def broken_files(folder: Path) -> list[str]:
    """Checkpoints that are not complete, or pointed to but missing."""
    broken = [str(p) for p in folder.glob('*.pth') if not is_complete(p)]
    pointer = folder / 'last_checkpoint'
    if pointer.exists() and not is_complete(pointer.read_text()):
        broken.append(f'{pointer}: {pointer.read_text()!r}')
    return broken


def last_checkpoint(folder: Path) -> dict:
    return read_checkpoint((folder / 'last_checkpoint').read_text())


def differences(one: object, other: object, name: str = '') -> list[str]:
    """The names of what differs in two nested structures of tensors."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [f'{name}.{key}' for key in one.keys() ^ other.keys()] + [
            found
            for key in one.keys() & other.keys()
            for found in differences(one[key], other[key], f'{name}.{key}')
        ]
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return differences(dict(enumerate(one)), dict(enumerate(other)), name)
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if torch.equal(one, other) else [name]
    return [] if one == other else [name]


def compare(reference: dict, result: dict) -> list[str]:
    parts = ('state_dict', 'distill_state_dict', 'optimizer')
    return [
        name
        for part in parts
        for name in differences(reference[part], result[part], part)
    ]


def main() -> None:
    args = parse_args()
    config = args.config or str(ROOT / CONFIG)
    options = ALWAYS + ([] if args.config else SMALL) + args.cfg_options
    shutil.rmtree(args.work_dir, ignore_errors=True)
    args.work_dir.mkdir(parents=True)
    # A random teacher is to be the same in every process.
    options.append(f'randomness.seed={args.seed}')
    moments = random.Random(args.seed)
    if args.fork:
        runpy.run_path(TRAIN)
        import mmpretrain.models  # noqa: F401

        import mmdiffkd.engine
        import mmdiffkd.models  # noqa: F401

    def start(folder: Path) -> Training:
        return Training(
            [
                config,
                f'--work-dir={folder}',
                '--resume',
                '--cfg-options',
                *options,
            ],
            args.work_dir / f'{folder.name}.log',
            args.fork,
        )

    began = time.monotonic()
    reference = args.work_dir / 'uninterrupted'
    start(reference).finish()
    duration = time.monotonic() - began
    print(f'Uninterrupted: {duration:.1f} s.', flush=True)
    expected = last_checkpoint(reference)

    kills = writing = left = runs = 0
    while kills < args.kills:
        folder = args.work_dir / f'run_{runs}'
        while True:
            before = set(temporary_files(folder))
            training = start(folder)
            if kills == args.kills:
                training.finish()
                break
            at_a_write = kills % 2 == 1
            if at_a_write:
                wait_for_write(training, folder, moments.randrange(3))
            else:
                wait_for_moment(training, moments.uniform(0, duration))
            if training.status is not None:
                training.check()
                break
            training.kill()
            kills += 1
            writing += at_a_write
            left += bool(set(temporary_files(folder)) - before)
            broken = broken_files(folder)
            print(
                f'Kill {kills}, run {runs}: '
                + ('while writing' if at_a_write else 'at random')
                + f'; there: {sorted(p.name for p in folder.glob("*.pth"))}',
                flush=True,
            )
            if broken:
                raise SystemExit(f'Not complete: {broken}')
        runs += 1
        found = compare(expected, last_checkpoint(folder))
        if found:
            raise SystemExit(
                f'Run {runs - 1} differs in {len(found)} tensors or numbers, '
                f'{found[:5]} among them.'
            )
        print(f'Run {runs - 1} is the same, bit for bit.', flush=True)
        shutil.rmtree(folder)
    print(
        f'{kills} kills, {writing} of them aimed at the writing of a '
        f'checkpoint ({left} left an unfinished one), in {runs} runs: '
        'every checkpoint complete at any time, and every run the same as the '
        f'uninterrupted one, bit for bit. {time.monotonic() - began:.0f} s.'
    )


if __name__ == '__main__':
    main()
