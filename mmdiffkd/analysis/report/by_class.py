"""Scores of classes as the page shows them, thousands of classes too."""

from collections.abc import Mapping, Sequence

#: The most rows of a table, and the most classes of a confusion.
MOST_ROWS = 200
MOST_CONFUSED = 30


def rows_of(
    classes: Sequence[str], scores: Mapping[str, Sequence[float | None]]
) -> list[dict]:
    """A row a class, those first in which the student is most behind.

    Args:
        classes (Sequence[str]): The names.
        scores (Mapping[str, Sequence[float | None]]): The figures of each
            network, the student's first.

    Returns:
        list[dict]: ``name``, ``values`` (one a network) and ``difference``:
        the student's less the best teacher's, None where one is missing. At
        most :data:`MOST_ROWS`.
    """
    rows = []
    for index, name in enumerate(classes):
        values = [each[index] for each in scores.values()]
        student, *teachers = values
        known = [value for value in teachers if value is not None]
        difference = None
        if known and student is not None:
            difference = student - max(known)
        rows.append(dict(name=name, values=values, difference=difference))

    def behind(row: dict) -> tuple:
        first = row['values'][0]
        key = row['difference'] if known_teacher else first
        return (key is None, key or 0)

    known_teacher = any(row['difference'] is not None for row in rows)
    return sorted(rows, key=behind)[:MOST_ROWS]


def means_of(
    scores: Mapping[str, Sequence[float | None]],
) -> list[float | None]:
    """The mean over classes that have one, of each network."""
    means = []
    for values in scores.values():
        known = [value for value in values if value is not None]
        means.append(sum(known) / len(known) if known else None)
    return means


def confusion_plots(
    classes: Sequence[str], confusions: Mapping[str, Sequence[Sequence[int]]]
) -> list[dict]:
    """The confusion of each network as a plot.

    Of more than :data:`MOST_CONFUSED` classes those are kept that the first
    network, the student, confuses most.

    Returns:
        list[dict]: ``kind``, ``key`` (the network), ``labels``, ``counts``
        (row: what it is, column: what was predicted), ``shares`` (the same
        in per cent of the row) and ``of``, how many classes there are.
    """
    if not confusions:
        return []
    first = next(iter(confusions.values()))
    count = range(len(classes))
    columns = [sum(row) for row in zip(*first)]
    wrong = [sum(first[i]) + columns[i] - 2 * first[i][i] for i in count]
    kept = sorted(sorted(count, key=lambda i: -wrong[i])[:MOST_CONFUSED])
    plots = []
    for name, matrix in confusions.items():
        totals = [sum(matrix[i]) for i in kept]
        counts = [[matrix[i][j] for j in kept] for i in kept]
        plots.append(
            dict(
                kind='confusion',
                key=name,
                labels=[classes[i] for i in kept],
                counts=counts,
                shares=[
                    [100 * each / total if total else None for each in row]
                    for row, total in zip(counts, totals)
                ],
                of=len(classes),
            )
        )
    return plots
