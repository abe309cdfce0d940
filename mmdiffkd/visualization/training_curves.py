"""Losses and accuracy of several runs in one figure."""

import fnmatch
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's palette, told apart with any colour vision; black last.
PALETTE = (
    '#0072B2',
    '#D55E00',
    '#009E73',
    '#CC79A7',
    '#E69F00',
    '#56B4E9',
    '#000000',
)
LINE_STYLES = ('-', '--', ':', '-.')

PANELS = {
    'loss': 'task loss',
    'distill.*loss*': 'distillation losses',
    'accuracy/top1': 'validation top-1 accuracy (%)',
}


def read_scalars(path: str | Path) -> tuple[list[dict], list[dict]]:
    """Read what MMEngine logged of a run.

    Args:
        path (str | Path): A ``scalars.json`` (one JSON object a line), or a
            work directory; then every ``*/vis_data/scalars.json`` in it is
            read in order of time, since a resumed run leaves several. Where
            two runs logged a value at the same step, the later one holds.

    Returns:
        tuple[list[dict], list[dict]]: The lines of training and those of
        validation, each in order of ``step``: iterations for training, and
        for validation what the run counts in, epochs or iterations.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    path = Path(path)
    files = [path]
    if path.is_dir():
        files = sorted(path.glob('*/vis_data/scalars.json'))
    if not files or not files[0].is_file():
        raise FileNotFoundError(
            f"No scalars.json at {path}: give a run's work directory or its "
            'vis_data/scalars.json.'
        )
    train, val = {}, {}
    for line in _lines(files):
        # Only training lines carry the iteration beside the step. Several
        # lines of a step, as of several teachers at step 0, are one.
        lines = train if 'iter' in line else val
        lines.setdefault(line['step'], {}).update(line)
    return tuple([by[step] for step in sorted(by)] for by in (train, val))


def _lines(files: Sequence[Path]) -> Iterator[dict]:
    for file in files:
        for text in file.read_text().splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                # A run that was killed leaves half a line behind.
                continue
            if isinstance(line, dict) and 'step' in line:
                yield line


def plot_training_curves(
    runs: Mapping[str, str | Path],
    out: str | Path,
    keys: Mapping[str, str] | None = None,
) -> None:
    """Draw several runs' logged values over training, one panel a pattern.

    A run has one colour in all panels. Where a pattern matches several keys
    (the parts of a distillation loss), each key has a line style and the
    panel a logarithmic axis.

    Args:
        runs (Mapping[str, str | Path]): Run's label to what
            :func:`read_scalars` takes: a work directory or a file.
        out (str | Path): The picture to write; the ending sets its format.
        keys (Mapping[str, str], optional): A panel each: a pattern of logged
            keys (``fnmatch``) to the label of the axis, unit included. A
            panel without any value is left out. Defaults to None: task
            loss, parts of the distillation loss, and top-1 accuracy.

    Raises:
        ValueError: If no run logged any of the keys.
    """
    keys = PANELS if keys is None else keys
    logs = {label: read_scalars(path) for label, path in runs.items()}
    panels = {pattern: _curves(logs, pattern) for pattern in keys}
    panels = {pattern: curves for pattern, curves in panels.items() if curves}
    if not panels:
        raise ValueError(
            f'None of the runs {list(runs)} logged a key like {list(keys)}.'
        )

    figure = Figure(
        figsize=(4.6 * len(panels), 4.2), dpi=120, layout='constrained'
    )
    colours = dict(zip(runs, cycle(PALETTE)))
    every_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (pattern, curves) in zip(every_axes, panels.items()):
        _draw(axes, curves, colours, pattern)
        title = keys[pattern]
        if axes.get_yscale() == 'log':
            title += ' (log scale)'
        axes.set_title(title, fontsize=11, loc='left')
    figure.legend(
        handles=[
            Line2D([], [], color=colour, label=label, linewidth=2.5)
            for label, colour in colours.items()
        ],
        loc='outside lower center',
        ncols=len(colours),
        frameon=False,
    )
    figure.savefig(out)


def _curves(logs, pattern: str) -> dict[tuple[str, str], tuple]:
    """``{(run, key): (steps, values, unit)}`` of what matches a pattern."""
    curves = {}
    for label, (train, val) in logs.items():
        by_epoch = any('epoch' in line for line in train)
        for lines, unit in (
            (train, 'iteration'),
            (val, 'epoch' if by_epoch else 'iteration'),
        ):
            found = sorted({key for line in lines for key in line})
            for key in fnmatch.filter(found, pattern):
                points = [(x['step'], x[key]) for x in lines if key in x]
                curves[label, key] = (*zip(*points), unit)
    return curves


def _draw(axes, curves, colours, pattern: str) -> None:
    """Fill one panel."""
    keys = sorted({key for _, key in curves})
    styles = dict(zip(keys, cycle(LINE_STYLES)))
    for (label, key), (steps, values, unit) in curves.items():
        axes.plot(
            steps,
            values,
            color=colours[label],
            linestyle=styles[key],
            linewidth=1.6,
            marker='o' if len(steps) <= 40 else None,
            markersize=3,
        )
        axes.set_xlabel(unit)
    if len(keys) > 1:
        axes.set_yscale('log')
        # What the pattern says of every key need not stand at each.
        common = len(pattern.partition('*')[0])
        axes.legend(
            handles=[
                Line2D([], [], color='0.3', ls=style, label=key[common:])
                for key, style in styles.items()
            ],
            loc='upper right',
            frameon=False,
            fontsize=8,
            handlelength=3,
        )
        # A quarter of the height more, for the legend alone.
        low, high = axes.get_ylim()
        axes.set_ylim(low, high * (high / low) ** 0.25)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(
        MaxNLocator(integer=True, steps=[1, 2, 5, 10])
    )
    axes.grid(color='0.9')
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
