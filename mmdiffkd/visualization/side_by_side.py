"""Pictures in rows and columns, to compare what stands in a row."""

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

#: Pixels an inch, which sets the size of letters.
DPI = 100


def pixels(figure: Figure) -> np.ndarray:
    """A drawn figure, uint8 RGB, (H, W, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def side_by_side(
    rows: Sequence[Sequence[np.ndarray]],
    captions: Sequence[str],
    legend: Sequence[tuple[str, Sequence[int]]] = (),
) -> np.ndarray:
    """Lay pictures out in a grid, pixel by pixel as they are.

    Nothing here touches matplotlib's global state or a random generator.

    Args:
        rows (Sequence[Sequence[np.ndarray]]): Pictures of one size, uint8
            RGB, (H, W, 3): R rows of C each.
        captions (Sequence[str]): What stands above each of the C columns.
        legend (Sequence[tuple[str, Sequence[int]]]): Names and colours (red,
            green, blue up to 255) of a line below everything. Defaults to
            (), none.

    Returns:
        np.ndarray: The picture, uint8 RGB, (H, W, 3).

    Raises:
        ValueError: If the pictures are not of one size, or a row has not
            one for each caption.
    """
    shapes = {picture.shape for row in rows for picture in row}
    if len(shapes) != 1 or {len(row) for row in rows} != {len(captions)}:
        raise ValueError(
            f'{[len(row) for row in rows]} pictures a row of the shapes '
            f'{sorted(shapes)} for {len(captions)} captions: give one for '
            'each caption, all of one shape.'
        )
    ((height, width, _),) = shapes
    gap, head, foot = 6, 32, 34 if legend else 6
    total = (
        gap + len(captions) * (width + gap),
        head + len(rows) * (height + gap) + foot,
    )
    figure = Figure(
        figsize=(total[0] / DPI, total[1] / DPI), dpi=DPI, facecolor='white'
    )
    for j, caption in enumerate(captions):
        left = gap + j * (width + gap)
        for i, row in enumerate(rows):
            top = head + i * (height + gap)
            figure.figimage(row[j], left, total[1] - top - height)
        figure.text(
            (left + width / 2) / total[0],
            1 - (head / 2) / total[1],
            caption,
            ha='center',
            va='center',
            fontsize=10,
        )
    step = (total[0] - 4 * gap) / max(len(legend), 1)
    for k, (name, colour) in enumerate(legend):
        figure.text(
            (2 * gap + k * step) / total[0],
            (foot / 2) / total[1],
            f' {name} ',
            va='center',
            fontsize=9,
            color='black' if sum(colour) > 300 else 'white',
            backgroundcolor=[value / 255 for value in colour],
        )
    return pixels(figure)
