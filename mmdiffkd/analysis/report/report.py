"""From work directories to the page."""

from collections.abc import Sequence
from pathlib import Path

from mmdiffkd.safety.atomic_files import atomic_write
from mmdiffkd.utils import is_distiller
from mmdiffkd.utils.collect_env import collect_env

from .by_class import tables_of
from .costs import costs_of_runs
from .curves import curves_of
from .networks import look
from .page import render
from .run import FinishedRun, labels_of, progress, read_run
from .settings import differences, distillation_lines

#: The page is named so, in the first work directory.
NAME = 'report.html'
#: What a page may weigh, in bytes.
LIMIT = 10_000_000


def write_report(
    folders: Sequence[Path],
    out: Path | None = None,
    split: str = 'test',
    images: int = 2000,
    force: bool = False,
) -> Path:
    """Write what is known of runs as one page that opens offline.

    What is missing of a run is said on the page.

    Args:
        folders (Sequence[Path]): Their work directories.
        out (Path, optional): The file. Defaults to None: ``report.html`` in
            the first work directory.
        split (str): The data that the networks see: ``'val'`` or
            ``'test'``. Defaults to ``'test'``.
        images (int): The most images of it that are taken, spread over the
            data; 0 builds no network for them. Defaults to 2000.
        force (bool): Whether a file that exists is replaced. Defaults to
            False.

    Returns:
        Path: The file.

    Raises:
        FileExistsError: If there is such a file.
        FileNotFoundError: If a folder holds no run.
        ValueError: If a folder is given twice.
    """
    folders = [Path(folder) for folder in folders]
    out = folders[0] / NAME if out is None else Path(out)
    if out.exists() and not (force and out.is_file()):
        cure = '' if out.is_dir() else ', or replace it by --force'
        raise FileExistsError(
            f'{str(out)!r} is there already. Give another file by --out{cure}.'
        )
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ValueError(
            f'{", ".join(map(str, folders))}: a work directory is named '
            'twice. Name each run once.'
        )
    runs = [
        read_run(folder, label)
        for folder, label in zip(folders, labels_of(folders))
    ]
    looks = [_look(run, split, images) for run in runs] if images else []
    page = render(
        runs=[_summary(run) for run in runs],
        results=_results(runs),
        groups=curves_of(runs),
        looks=looks,
        tables=tables_of([look for look in looks if not look['reason']]),
        costs=costs_of_runs(runs),
        differences=_differences(runs),
        environments=_environments(runs),
    )
    # A file name may be no UTF-8.
    content = page.encode(errors='replace')
    if len(content) > LIMIT:
        raise ValueError(
            f'the page of {len(runs)} runs would have {len(content):,} bytes, '
            f'and {LIMIT:,} is the most. Name fewer runs, or leave the '
            'pictures out by --images 0.'
        )
    with atomic_write(out) as file:
        file.write(content)
    return out


def _summary(run: FinishedRun) -> dict:
    """A run as the page shows it."""
    reached, length, unit = progress(run)
    model = (run.config or {}).get('model') or {}
    return dict(
        label=run.label,
        folder=str(run.folder),
        missing=run.missing,
        progress=f'{unit} {reached}' + (f' of {length}' if length else ''),
        checkpoint=run.checkpoint.name if run.checkpoint else '',
        entries=_entries(model) if is_distiller(model) else [],
        is_plain=bool(model) and not is_distiller(model),
        lines=[] if run.config is None else distillation_lines(run.config),
        config=run.config_text,
    )


def _entries(model: dict) -> list[str]:
    """The entries of a distiller, a line each."""
    entries = model['distill']
    if not isinstance(entries, dict) or isinstance(entries.get('preset'), str):
        return [f'the preset {entries!r}']
    lines = []
    for name, entry in entries.items():
        if not isinstance(entry, dict):
            continue
        parts = [
            part if isinstance(part, str) else part.get('type')
            for part in (entry.get('neck'), entry.get('loss'))
            if isinstance(part, str | dict)
        ]
        at = entry.get('at') or entry.get('student_at')
        lines.append(f'{name}: {" and ".join(map(str, parts))} at {at}')
    return lines


def _results(runs: Sequence[FinishedRun]) -> list[dict]:
    """The last logged value of each metric, of runs and their teachers."""
    rows: dict[str, list[str]] = {}
    for index, run in enumerate(runs):
        for line in run.val:
            for key, value in line.items():
                if key in ('step', 'time', 'data_time'):
                    continue
                cells = rows.setdefault(key, [''] * len(runs))
                if isinstance(value, int | float):
                    cells[index] = f'{value:.4g}'
    return [dict(key=key, cells=cells) for key, cells in sorted(rows.items())]


def _differences(runs: Sequence[FinishedRun]) -> dict:
    """The settings in which the runs differ, of those with a config."""
    known = [run for run in runs if run.config is not None]
    if len(known) < 2:
        return dict(labels=[], rows={})
    rows = differences([run.config for run in known])
    return dict(labels=[run.label for run in known], rows=rows)


def _look(run: FinishedRun, split: str, images: int) -> dict:
    """What the networks of a run do, or why nobody can tell."""
    reason, found = '', {}
    if run.config is None or run.checkpoint is None:
        reason = 'there is no config or no checkpoint.'
    else:
        try:
            found = look(run, split, images)
        except Exception as error:
            # Whatever data or networks of the user's raise.
            reason = f'{type(error).__name__}: {error}'
    return dict(label=run.label, reason=reason, **found)


def _environments(runs: Sequence[FinishedRun]) -> dict[str, str]:
    """Where the runs were trained and the page was written."""
    labels: dict[str, list[str]] = {}
    for run in runs:
        if run.environment:
            labels.setdefault(run.environment, []).append(run.label)
    here = '\n'.join(f'{k}: {v}' for k, v in collect_env().items())
    return {
        f'Where it was trained: {", ".join(names)}': text
        for text, names in labels.items()
    } | {'Where this page was written': here}
