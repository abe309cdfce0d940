"""What the documents say exists, compiles, builds and is so."""

import importlib
import inspect
import re
from pathlib import Path

import pytest
import tiny_recipes
from mmengine.config import Config
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import DefaultScope

from mmdiffkd import registry
from mmdiffkd.engine import DistillHook, optim_wrapper_constructor
from mmdiffkd.models import distillers
from mmdiffkd.models.distillers import distillation
from mmdiffkd.utils.setup_env import MINIMUM_VERSIONS

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    [
        *ROOT.glob('*.md'),
        *ROOT.glob('docs/*.md'),
        *ROOT.glob('configs/**/*.md'),
    ]
)
REGISTRIES = [registry.MODELS, registry.HOOKS]
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


@each_document
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


def documented(heading: str) -> dict[str, str]:
    """Keys and defaults of the table below a heading."""
    text = text_of('docs/configuration.md')
    section = re.split(r'^## ', text, flags=re.M)
    (section,) = (s for s in section if s.strip('`').startswith(heading))
    rows = re.findall(r'^\| (`.+?`) \|[^|]*\| (.+?) \|', section, re.M)
    return {
        key: default.strip('`')
        for keys, default in rows
        for key in re.findall(r'`(\w+)`', keys)
    }


OURS = dict.fromkeys(optim_wrapper_constructor._OURS, 1.0)
ENTRY = {
    key: parameters(distillers.Distillation).get(key)
    for key in distillation._KEYS
}
TABLES = {
    'Distiller': parameters(distillers.Distiller),
    'teacher': parameters(distillers.FrozenTeacher),
    'Entries': {**ENTRY, 'student_at': None, 'teacher_at': None},
    'schedule': parameters(distillers.Schedule),
    'DistillHook': parameters(DistillHook),
    'OptimWrapperConstructor': {**OURS, 'student_constructor': None},
} | {
    name: parameters(registry.MODELS.module_dict[name])
    for name in (
        'DiffKDNeck',
        'ProjectionNeck',
        'BottleneckDenoiser',
        'MLPDenoiser',
        'MSELoss',
        'KLDivergence',
    )
}


@pytest.mark.parametrize('heading', TABLES)
def test_keys_and_defaults(heading):
    table = documented(heading)
    assert table.keys() == TABLES[heading].keys()
    for key, default in table.items():
        if default != 'required':
            assert default == repr(TABLES[heading][key]), key


def test_versions():
    pins = dict(
        line.split('==')
        for line in text_of('requirements/constraints.txt').splitlines()
        if '==' in line
    )
    rows = re.findall(
        r'^\| `(\w+)` \| ([\w-]+) ([\d.]+).*? \| ([\d.]+) \|$',
        text_of('README.md'),
        re.M,
    )
    assert {name: oldest for name, *_, oldest in rows} == MINIMUM_VERSIONS
    assert all(pins[name] == version for _, name, version, _ in rows)


# Code


@each_document
def test_python_compiles(path):
    for block in python_blocks(path):
        compile(block, str(path), 'exec')


def transformer() -> dict:
    student = tiny_recipes.classifier()
    student['backbone'] = dict(
        type='VisionTransformer',
        arch=dict(
            embed_dims=8,
            num_layers=1,
            num_heads=2,
            feedforward_channels=16,
        ),
        img_size=tiny_recipes.SIZE,
        patch_size=4,
    )
    student['neck'] = None
    student['head'].update(type='VisionTransformerClsHead', in_channels=8)
    return student


def build_example(build, block: str):
    values = {}
    exec(block, values)
    student = transformer() if 'transformer' in block else None
    distill = values['distill']
    return build(tiny_recipes.distiller(student, distill=distill))


EXAMPLES = [
    block
    for block in python_blocks('docs/configuration.md')
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
    assert entries == 2 and len(tests) == 4
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
