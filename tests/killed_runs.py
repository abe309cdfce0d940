"""Training runs that are killed and resumed, again and again.

For ``tools/misc/crash_test.py`` and its test.
"""

import os
import random
import runpy
import shutil
import sys
import time
from collections.abc import Sequence
from multiprocessing import Process, get_context
from pathlib import Path

import torch
from recipe_files import ROOT

from mmdiffkd.safety.atomic_files import is_complete
from mmdiffkd.utils import read_checkpoint

TRAIN = str(ROOT / 'tools/train.py')
OPTIONS = (
    'default_hooks.checkpoint.type=mmdiffkd.CheckpointHook',
    'default_hooks.checkpoint.exact_resume=True',
    'default_hooks.checkpoint.max_keep_ckpts=1',
    'default_hooks.checkpoint.save_best=auto',
    # A random teacher is to be the same in every process.
    'randomness.seed=0',
)


def _train(arguments: Sequence[str], log: Path) -> None:
    """Run tools/train.py in this process; its output is appended to a file."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.argv = [TRAIN, *arguments]
    runpy.run_path(TRAIN, run_name='__main__')


def check_exit(process: Process, log: Path) -> None:
    """See that a run that has ended has ended without an error."""
    if process.exitcode:
        tail = log.read_text(errors='replace')[-3000:]
        raise SystemExit(
            f'{tail}\nTraining ended with status {process.exitcode}; the '
            f'whole output is in {log}.'
        )


def temporary_files(folder: Path) -> list[Path]:
    """Checkpoints that are being written, or were when the writer died."""
    return list(folder.glob('.*.pth.*.tmp'))


def wait_for_write(process: Process, folder: Path, skip: int) -> None:
    """Return while a checkpoint is being written, after so many others."""
    there = bool(temporary_files(folder))
    while process.is_alive():
        before, there = there, bool(temporary_files(folder))
        if there and not before:
            if not skip:
                return
            skip -= 1


def broken_files(folder: Path) -> list[str]:
    """Checkpoints that are not complete, or pointed to but missing."""
    broken = [str(p) for p in folder.glob('*.pth') if not is_complete(p)]
    pointer = folder / 'last_checkpoint'
    if pointer.exists() and not is_complete(pointer.read_text()):
        broken.append(f'{pointer}: {pointer.read_text()!r}')
    return broken


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
    """What differs in two checkpoints: student, necks and optimizer."""
    return [
        name
        for part in ('state_dict', 'distill_state_dict', 'optimizer')
        for name in differences(reference[part], result[part], part)
    ]


def crash_test(
    config: str, options: Sequence[str], work_dir: Path, kills: int, fork: bool
) -> None:
    """Train once, then kill and resume other runs; compare all of them.

    Args:
        config (str): A path, or ``package::name``.
        options (Sequence[str]): ``--cfg-options`` of ``tools/train.py``.
        work_dir (Path): Is emptied first.
        kills (int): How many.
        fork (bool): Fork the trainings off this process rather than start
            each anew.

    Raises:
        SystemExit: If a run fails, a checkpoint is not complete, or a
            result differs.
    """
    shutil.rmtree(work_dir, ignore_errors=True)
    work_dir.mkdir(parents=True)
    moments = random.Random(0)
    context = get_context('fork' if fork else 'spawn')

    def log_of(folder: Path) -> Path:
        return work_dir / f'{folder.name}.log'

    def start(folder: Path) -> Process:
        flags = [f'--work-dir={folder}', '--resume', '--cfg-options']
        arguments = [config, *flags, *OPTIONS, *options]
        process = context.Process(
            target=_train, args=(arguments, log_of(folder))
        )
        process.start()
        return process

    def finish(folder: Path, process: Process) -> None:
        process.join()
        check_exit(process, log_of(folder))

    def last_checkpoint(folder: Path) -> dict:
        return read_checkpoint((folder / 'last_checkpoint').read_text())

    began = time.monotonic()
    reference = work_dir / 'uninterrupted'
    finish(reference, start(reference))
    duration = time.monotonic() - began
    print(f'Uninterrupted: {duration:.1f} s.', flush=True)
    expected = last_checkpoint(reference)

    done = writing = left = runs = 0
    while done < kills:
        folder = work_dir / f'run_{runs}'
        while True:
            before = set(temporary_files(folder))
            process = start(folder)
            at_a_write = done % 2 == 1
            if done == kills:
                process.join()
            elif at_a_write:
                wait_for_write(process, folder, moments.randrange(3))
            else:
                process.join(moments.uniform(0, duration))
            if not process.is_alive():
                finish(folder, process)
                break
            process.kill()
            process.join()
            done += 1
            writing += at_a_write
            left += bool(set(temporary_files(folder)) - before)
            print(
                f'Kill {done}, run {runs}: '
                + ('while writing' if at_a_write else 'at random')
                + f'; there: {sorted(p.name for p in folder.glob("*.pth"))}',
                flush=True,
            )
            if broken := broken_files(folder):
                raise SystemExit(f'Not complete: {broken}')
        if found := compare(expected, last_checkpoint(folder)):
            raise SystemExit(
                f'Run {runs} differs in {len(found)} tensors or numbers, '
                f'{found[:5]} among them.'
            )
        print(f'Run {runs} is the same, bit for bit.', flush=True)
        runs += 1
        shutil.rmtree(folder)
    print(
        f'{done} kills, {writing} of them aimed at the writing of a '
        f'checkpoint ({left} left an unfinished one), in {runs} runs: '
        'every checkpoint complete at any time, and every run the same as the '
        f'uninterrupted one, bit for bit. {time.monotonic() - began:.0f} s.'
    )
