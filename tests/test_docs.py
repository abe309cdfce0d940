"""What the documents say exists, compiles, builds and is so."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_recipes
import torch
from mmengine.config import Config
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import DefaultScope

from mmdiffkd import registry
from mmdiffkd.engine import (
    CheckpointHook,
    DistillHook,
    optim_wrapper_constructor,
)
from mmdiffkd.models.distillers.spec import (
    DistillerSpec,
    EntrySpec,
    ScheduleSpec,
    TeacherSpec,
)
from mmdiffkd.utils.setup_env import MINIMUM_VERSIONS

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    [
        *ROOT.glob('*.md'),
        *ROOT.glob('docs/*.md'),
        *ROOT.glob('configs/**/*.md'),
    ]
)
REGISTRIES = [registry.MODELS, registry.DATASETS, registry.HOOKS]
REGISTRIES.append(registry.OPTIM_WRAPPER_CONSTRUCTORS)
for each in REGISTRIES:
    each.import_from_location()


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


def python_blocks(name: str) -> list[str]:
    return re.findall(r'^```python\n(.*?)^```', text_of(name), re.M | re.S)


def anchors(path: Path) -> set[str]:
    """The names under which a document's headings can be linked to."""
    text = re.sub(r'^```.*?^```', '', path.read_text(), flags=re.M | re.S)
    titles = re.findall(r'^#+ (.+)$', text, re.M)
    kept = (re.sub(r'[^\w\- ]', '', title.lower()) for title in titles)
    return {title.replace(' ', '-') for title in kept}


def is_name(name: str) -> bool:
    """Whether ``mmdiffkd.<name>`` is registered or can be imported."""
    if any(name in r.module_dict for r in REGISTRIES):
        return True
    found = importlib.import_module('mmdiffkd')
    for part in name.split('.'):
        try:
            found = getattr(found, part, None) or importlib.import_module(
                f'{found.__name__}.{part}'
            )
        except (ImportError, AttributeError):
            return False
    return True


each_document = pytest.mark.parametrize(
    'path', DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)


@each_document
def test_links_lead_somewhere(path):
    for target in re.findall(r'\]\(([^)\s]+)\)', path.read_text()):
        if '://' in target:
            continue
        file, _, anchor = target.partition('#')
        file = (path.parent / file).resolve() if file else path
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize(
    'path',
    # Which names what is gone.
    [path for path in DOCUMENTS if path.name != 'CHANGELOG.md'],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_what_is_named_exists(path):
    text = path.read_text()
    for name in set(re.findall(r'\bmmdiffkd\.((?:\w+\.)*\w+)', text)):
        assert is_name(name), name
    folders = 'configs|docs|mmdiffkd|requirements|tests|tools'
    for name in {
        *re.findall(rf'`((?:{folders})/[\w./-]+)`', text),
        *re.findall(rf'(?<![\w/.:])((?:{folders})/[\w./-]+\.\w+)', text),
    }:
        assert (ROOT / name).exists(), name
    for name in set(re.findall(r'`(test_\w+)`', text)):
        files = ROOT.glob('tests/**/*.py')
        assert any(f'def {name}(' in f.read_text() for f in files), name


# Keys and defaults


def parameters(source: type) -> dict[str, object]:
    return {
        name: parameter.default
        for name, parameter in inspect.signature(source).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    }


def section(title: str) -> str:
    """What stands below the heading of this name in configuration.md."""
    parts = (
        part.partition('\n')
        for part in re.split(
            r'^## ', text_of('docs/configuration.md'), flags=re.M
        )
    )
    found = [text for head, _, text in parts if head.strip('`') == title]
    assert len(found) == 1, f'{title} has {len(found)} sections'
    return found[0]


def documented(title: str) -> dict[str, str]:
    """Keys and defaults of the table below a heading."""
    rows = re.findall(r'^\| (`.+?`) \|[^|]*\| (.+?) \|', section(title), re.M)
    return {
        key: default.strip('`')
        for keys, default in rows
        for key in re.findall(r'`(\w+)`', keys)
    }


def registered(package: str) -> dict[str, type]:
    """What can be named inside ``distill`` out of one of our packages."""
    return {
        name: cls
        for name, cls in registry.MODELS.module_dict.items()
        if cls.__module__.startswith(f'mmdiffkd.models.{package}.')
    }


NECKS, LOSSES = registered('necks'), registered('losses')
TABLES = {
    'Distiller': parameters(DistillerSpec),
    'teacher': parameters(TeacherSpec),
    'Entries': parameters(EntrySpec),
    'schedule': parameters(ScheduleSpec),
}


@pytest.mark.parametrize('title', TABLES)
def test_keys_and_defaults(title):
    table = documented(title)
    assert table.keys() == TABLES[title].keys()
    for key, default in table.items():
        expected = TABLES[title][key]
        required = expected is inspect.Parameter.empty
        assert default == ('required' if required else repr(expected)), key


def test_keys_of_hooks_and_optimizer():
    hooks = (CheckpointHook, DistillHook)
    ours = {key for hook in hooks for key in parameters(hook)}
    ours |= {*optim_wrapper_constructor._DISTILL_KEYS, 'student_constructor'}
    named = set(re.findall(r'`(\w+)`', section('Hooks and optimizer')))
    assert named & ours == {
        *optim_wrapper_constructor._DISTILL_KEYS,
        'evaluate_teacher',
        'exact_resume',
        'panel_interval',
        'student_constructor',
    }


@pytest.mark.parametrize(
    'begin, holds',
    [
        ('the same classes', lambda cls: cls.over_classes),
        ('maps whose', lambda cls: cls.feature == 'map'),
        ('different channels', lambda cls: cls.any_channels),
        ('labels mixed', lambda cls: 'gt_labels' in cls.arguments()),
    ],
)
def test_how_to_choose_a_loss(begin, holds):
    row = re.search(rf'^\| {begin}.*', text_of('docs/losses.md'), re.M).group()
    names = re.findall(r'`(\w+)', row)
    assert names and all(holds(LOSSES[name]) for name in names)


def test_batch_norm_of_necks():
    (bullet,) = re.findall(
        r'\*\*Batch norm\.\*\* (.*?) have it', text_of('docs/necks.md'), re.S
    )
    assert set(re.findall(r'`(\w+)`', bullet)) == {
        name
        for name, cls in NECKS.items()
        if any(
            isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
            for module in of_256_channels(cls).modules()
        )
    }


def of_256_channels(cls: type) -> torch.nn.Module:
    channels = [256] if cls.joint else 256
    return cls(student_channels=channels, teacher_channels=channels)


def test_messages_are_in_the_code():
    texts = []
    for file in ROOT.glob('mmdiffkd/**/*.py'):
        for node in ast.walk(ast.parse(file.read_text())):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            found = (getattr(part, 'value', None) for part in parts)
            texts.append(
                ''.join(x if isinstance(x, str) else '\0' for x in found)
            )
    text = '\n'.join(texts)
    rows = re.findall(r'^\| (`.+?) \| ', text_of('docs/errors.md'), re.M)
    assert rows
    for row in rows:
        for message in re.findall(r'`` .+? ``|`[^`]+`', row):
            # What a message fills in: dots, a name, what is quoted.
            for words in re.split(r"\.\.\.|NAME|`|'[^']*'", message):
                assert words.strip() in text, message


def test_every_situation_is_held_by_a_test():
    rows = re.findall(
        r'^\| (?!you bring|---)(.*) \|$', text_of('docs/situations.md'), re.M
    )
    assert len(rows) >= 40
    for row in rows:
        *words, test = row.split(' | ')
        file, _, name = test.strip('`').partition('::')
        assert len(words) == 2 and all(words), row
        assert f'def {name}(' in text_of(f'tests/{file}'), test


def test_coming_from_mmrazor_leads_somewhere():
    rows = re.findall(
        r'^\| `\w+`.*?\| (.*?) \|', text_of('docs/mmrazor.md'), re.M
    )
    names = {
        name
        for row in rows
        for name in re.findall(r'`(\w*(?:Loss|Neck|RKD|Divergence))\b', row)
    }
    assert names and names <= {*NECKS, *LOSSES}


def test_versions():
    pins = dict(
        line.split('==')
        for line in text_of('requirements/constraints.txt').splitlines()
        if '==' in line
    )
    rows = re.findall(
        r'^\| `(\w+)` \| ([\w-]+) ([\d.]+).*? \| ([\d.]+) \|$',
        text_of('docs/install.md'),
        re.M,
    )
    assert {name: oldest for name, *_, oldest in rows} == MINIMUM_VERSIONS
    assert all(pins[name] == version for _, name, version, _ in rows)
    beside = re.findall(
        r'^\| (\w+) \| ([\d.]+) \|$', text_of('docs/install.md'), re.M
    )
    assert len(beside) == 4
    assert all(pins[name] == version for name, version in beside)


# Code


@each_document
def test_python_compiles(path):
    for block in python_blocks(path):
        compile(block, str(path), 'exec')


def build_example(build, block: str):
    values = {}
    exec(block, values)
    student = tiny_recipes.transformer() if 'transformer' in block else None
    distill = values['distill']
    return build(tiny_recipes.distiller(student, distill=distill))


EXAMPLES = [
    block
    for page in ('configuration', 'methods', 'necks')
    for block in python_blocks(f'docs/{page}.md')
    if '\ndistill = ' in f'\n{block}'
]


@pytest.mark.parametrize('block', EXAMPLES, ids=range(len(EXAMPLES)))
def test_examples_are_built(build, block):
    model = build_example(build, block)
    assert all(d.shapes for d in model.distill.values())


def test_examples_are_there():
    assert len(EXAMPLES) >= 8


@pytest.mark.parametrize(
    'name', ['README.md', 'docs/configuration.md', 'docs/mmrazor.md']
)
def test_whole_config_is_built(name, tmp_path):
    (block,) = (b for b in python_blocks(name) if 'mmdiffkd.Distiller' in b)
    file = tmp_path / 'config.py'
    file.write_text(block)
    config = Config.fromfile(file)
    config.model.data_preprocessor = config.data_preprocessor
    with DefaultScope.overwrite_default_scope(config.default_scope):
        model = MMENGINE_MODELS.build(config.model)
    assert set(model.distill) == set(config.model.distill)
    assert config.default_hooks.checkpoint.interval == 1
    assert config.default_hooks.logger


def commands(name: str) -> list[str]:
    """The code of a document, without comments and what is before them."""
    blocks = re.findall(r'^```\w+\n(.*?)^```', text_of(name), re.M | re.S)
    return [re.sub(r'(?m)(^| +)#.*$', '', block) for block in blocks]


def test_both_readmes_have_the_same_code():
    assert len(commands('README.md')) >= 6
    assert commands('README_zh-CN.md') == commands('README.md')


def figures(name: str) -> list[list[str]]:
    """The numbers with a decimal in each row of a document's tables."""
    rows = re.findall(r'^\|.*$', text_of(name), re.M)
    return [re.findall(r'[-+]?\d+\.\d+', row) for row in rows]


def test_both_readmes_have_the_same_figures():
    assert sum(map(len, figures('README.md'))) >= 30
    assert figures('README_zh-CN.md') == figures('README.md')


def test_extensions_run_and_pass_their_tests(build, monkeypatch):
    known = dict(registry.MODELS.module_dict)
    monkeypatch.setattr(registry.MODELS, '_module_dict', known)
    values, entries = {'__name__': 'documented'}, 0
    for block in python_blocks('docs/extending.md'):
        if block.startswith('distill = '):
            assert build_example(build, block).distill
            entries += 1
        elif not block.startswith('custom_imports'):
            exec(block, values)
    tests = [name for name in values if name.startswith('test_')]
    assert entries == 3 and len(tests) == 5
    for name in tests:
        values[name]()


def test_snippets_run():
    for block in python_blocks('docs/gradients.md'):
        exec(block, {'__name__': 'documented'})
    values = {'__name__': 'documented'}
    exec(python_blocks('docs/mmrazor.md')[-1], values)
    state = {'architecture.a.architecture.b': 1, 'teacher.a': 2}
    student = values['plain_student']({'state_dict': state})
    assert student == {'a.architecture.b': 1}


@pytest.mark.slow
def test_site_is_built_without_a_warning(tmp_path):
    command = ['-q', '-W', '--keep-going', '-b', 'html', '-c', 'docs', '.']
    subprocess.run(
        [sys.executable, '-m', 'sphinx', *command, str(tmp_path)],
        cwd=ROOT,
        check=True,
    )
    for page, classes in [('losses', LOSSES), ('necks', NECKS)]:
        html = (tmp_path / f'docs/{page}.html').read_text()
        for name in classes:
            assert f'id="mmdiffkd.models.{page}.{name}"' in html
