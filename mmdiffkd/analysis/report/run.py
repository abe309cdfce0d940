"""What a work directory tells of a run: logs, config, checkpoint."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from mmdiffkd.safety.atomic_files import is_complete, newest_complete
from mmdiffkd.utils import parse_config
from mmdiffkd.visualization import read_scalars

#: The plain recipe that a distiller's run writes beside its config.
_PLAIN_RECIPE = 'student.py'
_RULE = '-' * 60


@dataclass
class FinishedRun:
    """What is left of a run, whole or interrupted.

    Attributes:
        label (str): What the page calls it.
        folder (Path): Its work directory.
        train (list[dict]): The logged lines of training.
        val (list[dict]): Those of validation, a teacher's at step 0.
        config_text (str): The config as the run wrote it; empty if there is
            none.
        config (Config or None): The same, read; None if it cannot be.
        checkpoint (Path or None): The last one; None if there is none.
        environment (str): What the run logged of the machine; empty if it
            did not.
        missing (list[str]): Sentences about what is not there.
    """

    label: str
    folder: Path
    train: list[dict]
    val: list[dict]
    config_text: str
    config: Config | None
    checkpoint: Path | None
    environment: str
    missing: list[str] = field(default_factory=list)


def read_run(folder: Path, label: str) -> FinishedRun:
    """Read a work directory.

    Nothing in it is run. What ``custom_imports`` of its config names is
    imported, as in training.

    Args:
        folder (Path): The work directory.
        label (str): What the page calls the run.

    Raises:
        FileNotFoundError: If there is no such folder, or nothing of a run
            in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f'there is no folder {str(folder)!r}. Give the work directory of '
            'a run, where its logs and checkpoints are.'
        )
    missing = []
    try:
        train, val = read_scalars(folder)
    except FileNotFoundError:
        train, val = [], []
        missing.append(
            'There are no logged values: no */vis_data/scalars.json.'
        )
    for line in val:
        # So COCO's evaluation writes that there are no objects of a size.
        for key in [k for k in line if 'coco/' in k and line[k] == -1]:
            del line[key]
    text = _config_text(folder)
    checkpoint = _last_checkpoint(folder)
    if not (train or val or text or checkpoint):
        raise FileNotFoundError(
            f'{str(folder)!r} holds no run: no */vis_data/scalars.json, no '
            'config and no checkpoint. Give the work directory of a run.'
        )
    config = None
    if not text:
        missing.append('There is no config.')
    else:
        try:
            config = parse_config(text)
            _check_config(config)
        except ValueError as error:
            config = None
            missing.append(f'The config cannot be read: {error}.')
        else:
            missing += _import_modules(config)
    if checkpoint is None:
        missing.append('There is no complete checkpoint.')
    run = FinishedRun(
        label,
        folder,
        train,
        val,
        text,
        config,
        checkpoint,
        _environment(folder),
        missing,
    )
    if not run.environment:
        missing.append('The log does not say on which machine it ran.')
    reached, length, unit = progress(run)
    if length is not None and reached < length:
        missing.append(
            f'The run is not finished: {unit} {reached} of {length} is the '
            'last that left a trace.'
        )
    return run


def labels_of(folders: Sequence[Path]) -> list[str]:
    """Short names of work directories: the parts in which they differ."""
    parts = [folder.absolute().parts for folder in folders]
    shortest = min(map(len, parts))
    first = 0
    while first < shortest - 1 and len({p[first] for p in parts}) == 1:
        first += 1
    last = 0
    while (
        last < shortest - first - 1 and len({p[-1 - last] for p in parts}) == 1
    ):
        last += 1
    return ['/'.join(p[first : len(p) - last]) for p in parts]


def progress(run: FinishedRun) -> tuple[int, int | None, str]:
    """How far a run came, how far it should, and in which unit."""
    loop = (run.config or {}).get('train_cfg') or {}
    unit = 'iteration' if loop.get('max_iters') else 'epoch'
    key = 'iter' if unit == 'iteration' else 'epoch'
    # The epoch of a line is the one that runs.
    steps = [line.get(key, 0) - (key == 'epoch') for line in run.train]
    steps += [line['step'] for line in run.val]
    if run.checkpoint is not None:
        name = re.fullmatch(rf'{key}_(\d+)', run.checkpoint.stem)
        steps.append(int(name[1]) if name else 0)
    length = loop.get('max_iters') or loop.get('max_epochs')
    return max(steps, default=0), length, unit


def _starts(folder: Path) -> list[Path]:
    """The folders of starts, the newest that trained first.

    An evaluation leaves a folder, too, which says nothing of the training.
    """
    starts = [path for path in folder.iterdir() if path.is_dir()]

    def key(start: Path) -> tuple[bool, str]:
        return (start / 'vis_data/scalars.json').is_file(), start.name

    return sorted(starts, key=key, reverse=True)


def _config_text(folder: Path) -> str:
    """The config of the newest start, or the copy beside the logs."""
    starts = [start / 'vis_data/config.py' for start in _starts(folder)]
    dumps = [path for path in starts if path.is_file()][:1]
    dumps += sorted(
        path for path in folder.glob('*.py') if path.name != _PLAIN_RECIPE
    )
    return dumps[0].read_text(errors='replace') if dumps else ''


def _check_config(config: Config) -> None:
    """Refuse a config whose parts are of no use for a page."""
    for key in ('model', 'train_cfg'):
        part = config.get(key)
        if not (part is None or isinstance(part, dict)):
            raise ValueError(f'`{key}` is {part!r} and no dict')
    for key in ('max_epochs', 'max_iters'):
        length = (config.get('train_cfg') or {}).get(key)
        if not (length is None or isinstance(length, int)):
            raise ValueError(f'`train_cfg.{key}` is {length!r} and no number')


def _import_modules(config: Config) -> list[str]:
    """Import what the config names; gives a sentence if that fails."""
    imports = config.get('custom_imports')
    try:
        if imports:
            import_modules_from_strings(**imports)
    except Exception as error:
        # Whatever a module of the user's raises.
        return [
            '`custom_imports` of the config cannot be imported, and what they '
            f'register is not found ({type(error).__name__}: {error}). Put '
            'their folder into PYTHONPATH.'
        ]
    return []


def _last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of ``last_checkpoint``, or the newest complete one."""
    note = folder / 'last_checkpoint'
    if note.is_file():
        path = Path(note.read_text(errors='replace').strip())
        # The folder may have been moved since.
        for place in (folder / path.name, path):
            if is_complete(place):
                return place
    return newest_complete(folder)


def _environment(folder: Path) -> str:
    """What MMEngine logs at the start of a run, of its newest log."""
    logs = [log for start in _starts(folder) for log in start.glob('*.log')]
    for log in logs:
        with log.open(errors='replace') as file:
            text = file.read(1 << 16)
        _, found, rest = text.partition('System environment:\n')
        block, closed, _ = rest.partition(_RULE)
        if found and closed:
            return found + block.rstrip()
    return ''
