"""Scores of classes as the page shows them, thousands of classes too."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

#: The most rows of a table, and the most classes of a confusion.
MOST_ROWS = 200
MOST_CONFUSED = 30


def tables_of(looks: Sequence[Mapping]) -> list[dict]:
    """Tables by class, one for all runs with the same classes and images.

    Args:
        looks (Sequence[Mapping]): What the networks of each run do, see
            :func:`~.networks.look`, with the run's ``label``.

    Returns:
        list[dict]: ``title`` (empty for the only table); ``figure``,
        ``images``, ``of``, ``split`` and ``unscored`` as they were given;
        ``classes``, how many there are; ``headings``; ``rows``, at most
        :data:`MOST_ROWS` of a class's name and ``cells``; ``means`` over
        classes; ``overall``, of all images, empty texts if the mean says it;
        ``confusions``, heat maps.
    """
    groups: dict[tuple, list[Mapping]] = {}
    for look in looks:
        key = tuple(look['classes']), look['figure'], look['of'], look['split']
        groups.setdefault(key, []).append(look)
    several = len(looks) > 1
    tables = []
    for group in groups.values():
        first = group[0]
        columns: list[_Column] = []
        confusions, unscored = {}, {}
        for look in group:
            before = [column.values for column in columns]
            for name, values in look['scores'].items():
                # Runs may share a teacher, and may come with its own run.
                if name != 'student' and values in before:
                    continue
                heading = _heading(look['label'], name, several)
                columns.append(_Column(heading, values, look['overall'][name]))
                if name in look['confusions']:
                    confusions[heading] = look['confusions'][name]
            for name, reason in look['unscored'].items():
                unscored[_heading(look['label'], name, several)] = reason
            if len(look['scores']) > 1:
                heading = _heading(look['label'], 'difference', several)
                values = _behind(*look['scores'].values())
                (overall,) = _behind(*([v] for v in look['overall'].values()))
                columns.append(_Column(heading, values, overall, '+.1f'))
        titles = [look['label'] for look in group]
        tables.append(
            dict(
                title=', '.join(titles) if len(groups) > 1 else '',
                classes=len(first['classes']),
                headings=[column.heading for column in columns],
                rows=_rows(first['classes'], columns),
                means=[column.text(column.mean()) for column in columns],
                overall=[column.text(column.overall) for column in columns],
                confusions=confusion_plots(first['classes'], confusions),
                unscored=unscored,
                **{k: first[k] for k in ('figure', 'images', 'of', 'split')},
            )
        )
    return tables


class _Column(NamedTuple):
    heading: str
    values: Sequence[float | None]
    overall: float | None
    form: str = '.1f'

    def text(self, value: float | None) -> str:
        return '' if value is None else format(value, self.form)

    def mean(self) -> float | None:
        known = [value for value in self.values if value is not None]
        return sum(known) / len(known) if known else None


def _heading(run: str, name: str, several: bool) -> str:
    """What a column is called: a run stands for its student."""
    if not several:
        return name
    return run if name == 'student' else f'{run}: {name}'


def _behind(
    student: Sequence[float | None], *teachers: Sequence[float | None]
) -> list[float | None]:
    """The student's figures less the best teacher's."""
    found = []
    for ours, *theirs in zip(student, *teachers):
        known = [value for value in theirs if value is not None]
        missing = ours is None or not known
        found.append(None if missing else ours - max(known))
    return found


def _rows(classes: Sequence[str], columns: Sequence[_Column]) -> list[dict]:
    """The classes first in which a student is most behind, or the worst."""
    differences = [c for c in columns if c.form == '+.1f'] or columns[:1]

    def key(row: int) -> tuple:
        known = [c.values[row] for c in differences]
        known = [value for value in known if value is not None]
        return not known, min(known, default=0)

    return [
        dict(name=classes[row], cells=[c.text(c.values[row]) for c in columns])
        for row in sorted(range(len(classes)), key=key)[:MOST_ROWS]
    ]


def confusion_plots(
    classes: Sequence[str], confusions: Mapping[str, Counter]
) -> list[dict]:
    """The confusion of each network as a heat map.

    Of more than :data:`MOST_CONFUSED` classes those are kept that the first
    network confuses most.

    Args:
        classes (Sequence[str]): The names.
        confusions (Mapping[str, Counter]): How often a pair of classes,
            what it is and what was predicted, was found by each network.

    Returns:
        list[dict]: Heat maps, see :func:`~.page.render`. Values are in per
        cent of what belongs to the row's class.
    """
    if not confusions:
        return []
    wrong = Counter()
    for (truth, predicted), count in next(iter(confusions.values())).items():
        if truth != predicted:
            wrong[truth] += count
            wrong[predicted] += count
    order = sorted(range(len(classes)), key=lambda i: -wrong[i])
    kept = sorted(order[:MOST_CONFUSED])
    names = [classes[i] for i in kept]
    plots = []
    for key, found in confusions.items():
        totals = Counter()
        for (truth, _), count in found.items():
            totals[truth] += count
        values = [
            [
                100 * found[i, j] / totals[i] if totals[i] else None
                for j in kept
            ]
            for i in kept
        ]
        plots.append(
            dict(
                kind='heatmap',
                key=key,
                titles=('predicted', 'ground truth'),
                rows=names,
                columns=names,
                values=values,
                texts=[
                    [
                        'none' if v is None else f'{v:.1f} % ({found[i, j]:,})'
                        for j, v in zip(kept, row)
                    ]
                    for i, row in zip(kept, values)
                ],
                largest=100,
            )
        )
    return plots
