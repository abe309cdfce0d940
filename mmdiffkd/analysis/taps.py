"""The table of taps, and what the taps of a recipe yield."""

from mmengine.config import Config

from mmdiffkd.models.distillers.image_shape import find_shape, image_shapes
from mmdiffkd.models.distillers.known_taps import (
    MEANINGS,
    TABLE,
    Row,
    taps_of,
)
from mmdiffkd.models.distillers.taps import Taps
from mmdiffkd.models.distillers.teacher import build_from_config
from mmdiffkd.utils.config import plain_config

from .tables import markdown


def known(part: str) -> list[list[str]]:
    """The rows of the table for a part of networks.

    Args:
        part (str): A key of :data:`~.known_taps.TABLE`.

    Returns:
        list[list[str]]: Headings, then a row for each row of the table.
        Taps begin at the part. Columns that are empty throughout are left
        out.
    """
    shown = [
        key
        for key in MEANINGS
        if any(getattr(row, key, None) for row in TABLE[part])
    ]
    rows = [['class', *(key.replace('_', ' ') for key in shown), 'why not']]
    for row in TABLE[part]:
        taps = [_code(getattr(row, key)) for key in shown]
        rows.append([_classes(row), *taps, row.reason])
    if not any(row[-1] for row in rows[1:]):
        rows = [row[:-1] for row in rows]
    return rows


def _classes(row: Row) -> str:
    classes = _code(row.classes, ', ')
    if row.only is None:
        return classes
    name, value = row.only
    only = name if value is ... else f'{name}={value!r}'
    return f'{classes} with `{only}`'


def _code(text: str | None, separator: str = ' ') -> str:
    return separator.join(f'`{word}`' for word in (text or '').split())


def yielded(config: Config) -> str:
    """What the taps of a recipe yield, as a table in Markdown.

    Args:
        config (Config): A recipe; of a distiller's the student's.

    Raises:
        ValueError: If the network does not run.
    """
    network = build_from_config(plain_config(config))
    rows = []
    for key, taps in taps_of(network).items():
        if taps is None:
            rows.append([key, '-', ''])
            continue
        recorded = Taps(network, taps, 'student')
        shape, shapes, _ = find_shape(network, recorded, image_shapes(network))
        for tap in taps:
            for name, each in zip(recorded.names(tap), shapes[tap]):
                rows.append([key, name, tuple(each)])
    return markdown(['', 'tap', 'shape of two images'], rows)
