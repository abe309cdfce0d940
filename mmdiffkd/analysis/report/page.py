"""The page: a template, a style sheet and a script, all in one file.

Texts of a run are escaped by Jinja. Numbers for plots go in as JSON. The
page's policy lets it run its own two scripts alone and load nothing.
"""

import base64
import hashlib
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from mmdiffkd.version import __version__
from mmdiffkd.visualization.training_curves import PALETTE

_FOLDER = Path(__file__).parent
#: Black is left out: half of the pages are dark.
COLOURS = PALETTE[:6]
_DASHES = ('solid', 'dot', 'dashdot')


def render(
    runs: list[dict],
    groups: list[dict],
    looks: list[dict],
    tables: list[dict],
    **content,
) -> str:
    """Fill the template.

    A heat map is a dict of ``kind='heatmap'``, ``key`` (what stands above
    it), ``titles`` of the columns and of the rows, their names ``columns``
    and ``rows``, ``values`` row by row, ``texts`` that say the same, and
    ``largest``, the value of the brightest colour; 0 has the darkest.

    Args:
        runs (list[dict]): The runs, see ``report.py``.
        groups (list[dict]): What :func:`~.curves.curves_of` gives.
        looks (list[dict]): What :func:`~.networks.look` gives, with the
            ``label`` of the run; or ``reason``, why there is nothing.
        tables (list[dict]): What :func:`~.by_class.tables_of` gives.
        **content: What else the template names.

    Returns:
        str: The page.
    """
    environment = Environment(
        autoescape=True,
        loader=FileSystemLoader(_FOLDER),
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    # NaN is no JSON: the page would stay empty.
    environment.policies['json.dumps_kwargs'] = dict(allow_nan=False)
    for index, run in enumerate(runs):
        run['colour'] = COLOURS[index % len(COLOURS)]
        run['dash'] = _DASHES[index // len(COLOURS) % len(_DASHES)]
    plots = [plot for group in groups for plot in group['plots']]
    plots += [plot for table in tables for plot in table['confusions']]
    plots += [plot for look in looks for plot in look.get('stages', ())]
    for index, plot in enumerate(plots):
        plot['index'] = index
    scripts = [get_plotlyjs(), _text('page.js')]
    data = dict(
        runs=[
            {key: run[key] for key in ('label', 'colour', 'dash')}
            for run in runs
        ],
        plots=plots,
    )
    return environment.get_template('template.html').render(
        runs=runs,
        groups=groups,
        looks=looks,
        tables=tables,
        data=data,
        scripts=[Markup(script) for script in scripts],
        hashes=[_hash(script) for script in scripts],
        style=Markup(_text('page.css')),
        version=__version__,
        **content,
    )


@cache
def _text(name: str) -> str:
    return (_FOLDER / name).read_text()


def _hash(script: str) -> str:
    """A script's hash as a content security policy takes it."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
