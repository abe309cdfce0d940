"""Every logged value over training, as numbers for the page to plot."""

import math
from collections.abc import Sequence

from .run import FinishedRun

#: The longest curve that is kept whole.
MOST_POINTS = 1000
#: What is logged of a step beside its losses.
_SPEED = ('time', 'data_time')
_UNITS = {'time': 's', 'data_time': 's', 'memory': 'MB'}


def curves_of(runs: Sequence[FinishedRun]) -> list[dict]:
    """The curves of several runs, a plot for each logged value.

    Args:
        runs (Sequence[FinishedRun]): The runs.

    Returns:
        list[dict]: Groups with ``title`` and ``plots``. A plot has ``key``
        (the logged name), ``unit`` of the x-axis, ``measure``, the unit of
        the y-axis (empty if it has none), and ``curves``: ``run``
        (an index), ``teacher`` (a name, None for the run's own), ``x``,
        ``y`` (None for what is not finite), ``every`` (1 unless the curve
        was thinned) and ``lost``, how many values are not finite.
    """
    plots: dict[tuple, dict] = {}

    def add(group: str, key: str, unit: str, curve: dict) -> None:
        plot = plots.setdefault(
            (group, key, unit),
            dict(key=key, unit=unit, measure=_measure(key), curves=[]),
        )
        plot['curves'].append(curve)

    for index, run in enumerate(runs):
        by_epoch = any('epoch' in line for line in run.train)
        unit = 'epoch' if by_epoch else 'iteration'
        last = max((line['step'] for line in run.val), default=0) or 1
        train = _values(run.train)
        # A classifier's only loss has the name of the sum, and replaces it.
        is_sum = any(key != 'loss' and _group(key) == 'task' for key in train)
        for key, points in train.items():
            if key not in ('step', 'iter', 'epoch'):
                curve = _curve(index, points)
                group = 'sum' if key == 'loss' and is_sum else _group(key)
                add(group, key, 'iteration', curve)
        for key, points in _values(run.val).items():
            teacher, metric = _split_teacher(key)
            if teacher is not None:
                value = points[-1][1]
                line = _curve(index, [(0, value), (last, value)], teacher)
                add('metrics', metric, unit, line)
            elif key in _SPEED:
                curve = _curve(index, points)
                add('speed', f'validation: {key}', unit, curve)
            elif key != 'step':
                add('metrics', key, unit, _curve(index, points))
    return [
        dict(
            title=title,
            plots=[
                plot
                for (found, _, _), plot in sorted(
                    plots.items(), key=lambda item: item[0]
                )
                if found == group
            ],
        )
        for group, title in GROUPS.items()
        if any(found == group for found, _, _ in plots)
    ]


GROUPS = {
    'metrics': 'Metrics on the validation data',
    'task': "Losses of the student's own task",
    'distill': 'Distillation losses, weighted',
    'sum': 'Sum of all losses',
    'figures': 'Gamma and other figures of the distillation',
    'speed': 'Learning rate, time, memory and the rest',
}


def _group(key: str) -> str:
    if key.startswith('distill.'):
        return 'distill' if 'loss' in key else 'figures'
    return 'task' if 'loss' in key else 'speed'


def _measure(key: str) -> str:
    """The unit of a logged value, of those that have one."""
    first, _, last = key.replace(': ', '/').partition('/')
    if first in ('accuracy', 'mIoU', 'mAcc', 'aAcc', 'mDice'):
        return '%'
    return _UNITS.get(last or first, '')


def _values(lines: Sequence[dict]) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of each key; what is no number is left out."""
    values: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        for key, value in line.items():
            if isinstance(value, int | float):
                values.setdefault(key, []).append((line['step'], value))
    return values


def _split_teacher(key: str) -> tuple[str | None, str]:
    """The teacher and the metric in a logged name."""
    first, slash, metric = key.partition('/')
    if slash and first == 'teacher':
        return first, metric
    if slash and first.startswith('teachers.'):
        return f'teacher {first.removeprefix("teachers.")}', metric
    return None, key


def _curve(
    run: int, points: Sequence[tuple[int, float]], teacher: str | None = None
) -> dict:
    every = math.ceil(len(points) / MOST_POINTS)
    kept = list(points[::every])
    if points and kept[-1] != points[-1]:
        kept.append(points[-1])
    return dict(
        run=run,
        teacher=teacher,
        x=[step for step, _ in kept],
        y=[value if math.isfinite(value) else None for _, value in kept],
        every=every,
        lost=sum(not math.isfinite(value) for _, value in points),
    )
