"""The documents as a site.

Built by ``sphinx-build -b html -c docs . build/html``. The source folder is
the root of the repository, because pages link out of this folder: to the
README of each method and to configs. The same links work on GitHub.

A line ``<!-- reference: NAME -->`` in a page becomes a reference that is made
from the code; NAME is a key of :data:`REFERENCES`.
"""

import re
from collections.abc import Callable, Iterable
from inspect import getdoc, isclass, signature
from types import ModuleType

from sphinx.application import Sphinx

import mmdiffkd
from mmdiffkd import engine, registry
from mmdiffkd.analysis import taps
from mmdiffkd.models import backbones, diffusion, distillers, losses, necks
from mmdiffkd.models.distillers import presets, spec
from mmdiffkd.utils.python_text import as_python

project = 'mmdiffkd'
author = copyright = 'the mmdiffkd contributors'
release = mmdiffkd.__version__

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']
root_doc = 'docs/index'
include_patterns = ['*.md', 'docs/*.md', 'configs/*/README.md']
exclude_patterns = ['.*', 'build', 'data', 'dist', 'work_dirs']
html_extra_path = ['extra']  # index.html leads to docs/index.html
html_static_path = ['static']
html_css_files = ['tables.css']
html_theme = 'furo'
html_title = 'mmdiffkd'
myst_heading_anchors = 4
autodoc_preserve_defaults = True
napoleon_use_ivar = True
smartquotes = False
add_module_names = False


def summary(cls: type) -> str:
    """The first sentence of a docstring."""
    return re.match(r'.+?\.(?=\s|$)', getdoc(cls), re.S)[0]


def trained(cls: type) -> str:
    """How many parameters there are between tensors of 256 channels."""
    width = [256] if issubclass(cls, necks.DistillNeck) and cls.joint else 256
    keys = signature(cls).parameters.keys()
    keys &= {'student_channels', 'teacher_channels'}
    module = cls(**dict.fromkeys(keys, width))
    return f'{sum(each.numel() for each in module.parameters()):,}'


def takes(cls: type) -> str:
    """What a loss compares."""
    return cls.feature or 'map or vector'


def channels(cls: type) -> str:
    """What a loss asks of the channels of student and teacher."""
    if cls.over_classes:
        return 'the same classes'
    return 'any' if cls.any_channels else 'equal'


def table(rows: Iterable[Iterable[str]]) -> str:
    """A table in reStructuredText, whose first row is the heading."""
    lines = ['.. list-table::', '   :header-rows: 1', '']
    for row in rows:
        cells = [' '.join(cell.split()) for cell in row]
        lines.append('   * - ' + '\n     - '.join(cells))
    return '\n'.join(lines) + '\n'


def registered(package: ModuleType) -> list[type]:
    """The registered classes of a package, by name."""
    return [
        cls
        for _, cls in sorted(registry.MODELS.module_dict.items())
        if cls.__module__.startswith(f'{package.__name__}.')
    ]


def exported(package: ModuleType) -> list[type]:
    """The classes that a package exports, by name."""
    found = (getattr(package, name) for name in sorted(package.__all__))
    return [each for each in found if isclass(each)]


def reference(found: list[type], **columns: Callable[[type], str]) -> str:
    """A table of classes, then their docstrings, in reStructuredText.

    Args:
        found (list[type]): The classes, exported by the package that holds
            their module.
        **columns (Callable): What a column says of a class, by its heading.
    """
    columns = {'summary': summary, **columns}
    names = [
        f'{cls.__module__.rpartition(".")[0]}.{cls.__name__}' for cls in found
    ]
    rows = [
        [f':class:`~{name}`', *(column(cls) for column in columns.values())]
        for name, cls in zip(names, found)
    ]
    docstrings = [f'.. autoclass:: {name}\n' for name in names]
    return '\n'.join([table([['', *columns], *rows]), *docstrings])


def keys(kind: type[spec.Spec]) -> str:
    """The keys of a part of the config: default and description."""
    rows = [
        [
            f'``{name}``',
            'required' if field.is_required() else f'``{field.default!r}``',
            field.description,
        ]
        for name, field in kind.model_fields.items()
    ]
    return table([['key', 'default', 'meaning'], *rows])


def known_taps(part: str) -> str:
    """The table of taps for a part of networks."""
    rows = taps.known(part)
    return table([[cell.replace('`', '``') for cell in row] for row in rows])


def known_presets() -> str:
    """The table of presets, an entry a row."""
    rows = [['method', 'for', 'entry', 'tap', 'neck and loss', 'source']]
    for method, structures, source, entries in presets.PRESETS:
        for name, entry in entries.items():
            parts = [entry[key] for key in ('neck', 'loss') if key in entry]
            rows.append(
                [
                    f'``{method}``',
                    ', '.join(structures),
                    f'``{name}``',
                    entry['at'].replace('_', ' '),
                    ', '.join(f'``{as_python(part)}``' for part in parts),
                    source,
                ]
            )
    return table(rows)


#: What can stand in a page.
REFERENCES: dict[str, Callable[[], str]] = {
    'losses': lambda: reference(
        registered(losses), takes=takes, channels=channels, parameters=trained
    ),
    'necks': lambda: reference(registered(necks), parameters=trained),
    'diffusion': lambda: reference(exported(diffusion)),
    'backbones': lambda: reference(registered(backbones)),
    'distillers': lambda: reference(
        [distillers.Distiller, distillers.FrozenTeacher, distillers.Entry]
    ),
    'distiller': lambda: keys(spec.DistillerSpec),
    'entry': lambda: keys(spec.EntrySpec),
    'schedule': lambda: keys(spec.ScheduleSpec),
    'teacher': lambda: keys(spec.TeacherSpec),
    'presets': known_presets,
    'bases': lambda: '\n'.join(
        f'.. autoclass:: mmdiffkd.models.{name}\n   :members:\n'
        for name in (
            'losses.DistillLoss',
            'necks.DistillNeck',
            'part.DistillPart',
        )
    ),
    'engine': lambda: reference(exported(engine)),
    'datasets': lambda: (
        '.. autoclass:: mmdiffkd.datasets.CachedDataset\n   :members:\n\n'
        '.. automodule:: mmdiffkd.datasets.digit_scenes\n   :members:\n'
    ),
    'taps_of_backbones': lambda: known_taps('backbone'),
    'taps_of_necks': lambda: known_taps('neck'),
    'taps_of_heads': lambda: known_taps('head'),
    'taps_of_models': lambda: known_taps('model'),
}


def fill(app: Sphinx, page: str, source: list[str]) -> None:
    """Put references into a page."""
    source[0] = re.sub(
        r'^<!-- reference: (\w+) -->$',
        lambda found: f'```{{eval-rst}}\n{REFERENCES[found[1]]()}\n```',
        source[0],
        flags=re.M,
    )


def setup(app: Sphinx) -> None:
    """Connect what this file adds to Sphinx."""
    app.connect('source-read', fill)
