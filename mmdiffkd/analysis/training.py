"""Trainings and evaluations, each in a process and a folder of its own.

A crash or a stop loses one run at most. A finished run is read, and one that
has begun is resumed from its last checkpoint.
"""

import hashlib
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config

import mmdiffkd
from mmdiffkd.safety.atomic_files import atomic_write
from mmdiffkd.utils import load_config
from mmdiffkd.visualization import read_scalars

#: The command lines of this package, those of an installed one included.
TOOLS = (Path(mmdiffkd.__file__).parent / '.mim' / 'tools').resolve()
#: Children at work, those of other threads included.
_CHILDREN: set[subprocess.Popen] = set()


class ChildFailed(RuntimeError):
    """A child process failed; the message holds the end of its log."""


class OtherSettings(ValueError):
    """A folder holds a run of other settings, or something else."""


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        config (str): A path, or ``package::name``.
        folder (Path): Where everything of this run is written.
        options (Mapping[str, object]): What is changed in the config, by
            dotted key. Defaults to nothing.
    """

    config: str
    folder: Path
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def settings(self) -> Config:
        """The config with the options merged in."""
        config = load_config(self.config)
        config.merge_from_dict(dict(self.options))
        return config

    @property
    def fingerprint(self) -> str:
        """A hash of the whole merged config, which differs with settings."""
        settings = json.dumps(
            self.settings.to_dict(), sort_keys=True, default=str
        )
        return hashlib.sha256(settings.encode()).hexdigest()

    @property
    def command(self) -> list[str]:
        """The command that trains it from the beginning."""
        command = [sys.executable, str(TOOLS / 'train.py'), self.config]
        return [*command, '--work-dir', str(self.folder), *self.cfg_options]

    @property
    def cfg_options(self) -> list[str]:
        """The flag of a tool that changes the config."""
        pairs = [f'{key}={value}' for key, value in self.options.items()]
        return ['--cfg-options', *pairs] if pairs else []

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint."""
        return Path((self.folder / 'last_checkpoint').read_text())


def run_child(
    command: Sequence[str],
    log: Path,
    threads: int | None = None,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Run a command, and append its output to a file.

    Args:
        command (Sequence[str]): The command and its arguments.
        log (Path): The file.
        threads (int, optional): OpenMP threads of the child. Defaults to
            None: as the environment has it.
        on_line (Callable, optional): Is called with each line as it comes.

    Raises:
        ChildFailed: If the command fails.
    """
    environment = dict(os.environ, PYTHONUNBUFFERED='1')
    if threads is not None:
        environment['OMP_NUM_THREADS'] = str(threads)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('a') as file:
        file.write(f'$ {shlex.join(command)}\n')
        child = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors='replace',
        )
        _CHILDREN.add(child)
        try:
            for line in child.stdout:
                file.write(line)
                file.flush()
                if on_line is not None:
                    on_line(line.rstrip('\n'))
        except BaseException:
            child.terminate()
            raise
        finally:
            child.stdout.close()
            code = child.wait()
            _CHILDREN.discard(child)
    if code:
        last = ''.join(log.read_text().splitlines(keepends=True)[-15:])
        raise ChildFailed(
            f'{shlex.join(command)}\nended with code {code}. The end of its '
            f'log, {log}:\n\n{last}'
        )


def stop_children() -> None:
    """Stop every child that :func:`run_child` has started in any thread."""
    for child in list(_CHILDREN):
        child.terminate()


def train(
    run: Run,
    threads: int | None = None,
    on_line: Callable[[str], None] | None = None,
) -> dict:
    """Train a run, or read its result if it is finished.

    For the other arguments see :func:`run_child`.

    Returns:
        dict: ``metrics`` (of the last validation, never of the best one),
        ``seconds`` (start and validation included; after a resume, of the
        rest alone), ``seconds_per_step`` (median over what was logged),
        ``resumed``, and the run's settings.

    Raises:
        ChildFailed: If the training fails, or does not end with a
            validation.
        OtherSettings: If the folder holds anything but this run.
    """
    begun, finished = run.folder / 'run.json', run.folder / 'result.json'
    if begun.is_file():
        if json.loads(begun.read_text())['fingerprint'] != run.fingerprint:
            raise OtherSettings(
                f'{run.folder} holds a run of other settings than '
                f'{run.config} with {dict(run.options)}: remove that folder '
                'or choose another.'
            )
        if finished.is_file():
            return json.loads(finished.read_text())
    elif run.folder.is_dir() and any(run.folder.iterdir()):
        raise OtherSettings(
            f'{run.folder} holds something else: remove that folder or '
            'choose another.'
        )
    command, resumed = run.command, False
    if (run.folder / 'last_checkpoint').is_file():
        command, resumed = [*command, '--resume'], True
    elif run.folder.is_dir():
        shutil.rmtree(run.folder)
    record = {
        'config': run.config,
        'options': dict(run.options),
        'fingerprint': run.fingerprint,
    }
    _write_json(begun, record)

    start = time.perf_counter()
    run_child(command, run.folder / 'train.log', threads, on_line)
    seconds = time.perf_counter() - start
    training, validation = read_scalars(run.folder)
    loop = run.settings.train_cfg
    length = loop.get('max_epochs') or loop['max_iters']
    if not validation or validation[-1]['step'] < length:
        if resumed:
            # It was stopped between its last checkpoint and the validation
            # of that. MMEngine does not validate after such a resume.
            shutil.rmtree(run.folder)
            return train(run, threads, on_line)
        raise ChildFailed(
            f'{run.folder} does not end with a validation: {run.config} has '
            'to validate at the end of training (train_cfg.val_interval).'
        )
    result = {
        **record,
        'metrics': validation[-1],
        'seconds': round(seconds, 1),
        'seconds_per_step': statistics.median(x['time'] for x in training),
        'resumed': resumed,
    }
    _write_json(finished, result)
    return result


def evaluate(run: Run, threads: int | None = None) -> dict:
    """The metrics of a trained run's last checkpoint on the test data.

    Raises:
        ChildFailed: If the evaluation fails.
    """
    metrics = run.folder / 'test.json'
    if not metrics.is_file():
        partial = run.folder / 'test.partial.json'
        command = [sys.executable, str(TOOLS / 'test.py'), run.config]
        command += [str(run.checkpoint), '--out', str(partial)]
        command += ['--out-item', 'metrics']
        command += ['--work-dir', str(run.folder / 'test')]
        run_child(command + run.cfg_options, run.folder / 'test.log', threads)
        partial.replace(metrics)
    return json.loads(metrics.read_text())


def _write_json(path: Path, content: object) -> None:
    text = json.dumps(content, indent=1, default=str) + '\n'
    with atomic_write(path) as file:
        file.write(text.encode())
