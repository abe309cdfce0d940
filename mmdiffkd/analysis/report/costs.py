"""What runs cost: their networks, and a step of their training."""

from collections.abc import Sequence
from statistics import median

from mmdiffkd.utils import is_distiller

from ..macs import get_costs, readable
from .run import FinishedRun


def costs_of_runs(runs: Sequence[FinishedRun]) -> list[dict]:
    """What the networks of runs cost, counted for images of one size.

    A plain recipe may not say how large its images are. It is counted for
    those of the first run that distils.

    Args:
        runs (Sequence[FinishedRun]): The runs.

    Returns:
        list[dict]: ``label``; ``step``, what a step of training takes, in
        words; ``reason`` why nothing else is known, else empty; ``image``,
        its height and width; ``rows`` of ``part``, ``parameters`` and
        ``macs``, multiply-adds of a forward pass for one image.
    """
    costs, shape = {}, None
    for run in sorted(runs, key=lambda run: not _distils(run)):
        costs[run.label] = found = _costs(run, shape)
        if _distils(run):
            shape = shape or found.get('shape')
    return [costs[run.label] for run in runs]


def _distils(run: FinishedRun) -> bool:
    return is_distiller((run.config or {}).get('model') or {})


def _costs(run: FinishedRun, shape: Sequence[int] | None) -> dict:
    if run.config is None:
        costs, reason = {}, 'there is no config.'
    else:
        try:
            costs = get_costs(run.config, None if _distils(run) else shape)
            reason = ''
        except Exception as error:
            # Whatever a network of the user's raises.
            costs, reason = {}, f'{type(error).__name__}: {error}'
    parts = {'deployed': costs['deployed']} if costs else {}
    for name, cost in costs.get('teachers', {}).items():
        parts[name if name == 'teacher' else f'teacher {name}'] = cost
    for name, cost in costs.get('entries', {}).items():
        if any(cost.values()):
            parts[f'necks of {name}'] = cost
    return dict(
        label=run.label,
        step=_step(run, costs.get('step_ratio')),
        reason=reason,
        shape=costs.get('shape'),
        image='{} x {}'.format(*costs['shape']) if costs else '',
        rows=[
            dict(part=part, **{key: readable(cost[key]) for key in cost})
            for part, cost in parts.items()
        ],
    )


def _step(run: FinishedRun, ratio: float | None) -> str:
    """What a step of training takes, as far as it is known."""
    words = []
    if ratio:
        words.append(f'{ratio:.2f} times the arithmetic of the student alone')
    times = [line['time'] for line in run.train if 'time' in line]
    if times:
        words.append(f'{median(times):.3f} s (median)')
    memory = [line['memory'] for line in run.train if 'memory' in line]
    if memory:
        words.append(f'at most {max(memory):,} MB of GPU memory')
    return ', '.join(words)
