"""What forms, workflow, image and changelog name is there."""

import re
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from mmdiffkd.version import __version__

ROOT = Path(__file__).resolve().parents[2]
PROJECT_FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (
        *ROOT.glob('.github/**/*.*'),
        *ROOT.glob('Dockerfile'),
        *ROOT.glob('.ci/run'),
    )
)
YAML = [
    *(name for name in PROJECT_FILES if name.endswith('.yml')),
    '.pre-commit-config.yaml',
    'CITATION.cff',
    'model-index.yml',
]
FOLDERS = '.ci|.github|configs|docs|mmdiffkd|requirements|tests|tools'


def read(name):
    return (ROOT / name).read_text()


def test_files_are_found():
    assert {
        '.ci/run',
        '.github/ISSUE_TEMPLATE/bug.yml',
        '.github/PULL_REQUEST_TEMPLATE.md',
        '.github/workflows/ci.yml',
        'Dockerfile',
    } <= set(PROJECT_FILES)


@pytest.mark.parametrize('name', YAML)
def test_yaml_is_read(name):
    assert isinstance(yaml.safe_load(read(name)), dict)


@pytest.mark.parametrize('name', PROJECT_FILES)
def test_what_is_named_exists(name):
    text = read(name)
    paths = re.findall(rf'(?<![\w./-])((?:{FOLDERS})/[\w./-]*\w)', text)
    paths += re.findall(r'(?<![\w./-])[A-Z]+\.md\b', text)
    assert [path for path in paths if not (ROOT / path).exists()] == []
    targets = set(re.findall(r'^([a-z-]+):', read('Makefile'), re.M))
    assert set(re.findall(r'\bmake ([a-z][a-z-]*)', text)) - targets == set()
    modules = re.findall(r'python -m ([\w.]+)', text)
    assert [module for module in modules if find_spec(module) is None] == []


FORMS = [
    name
    for name in YAML
    if 'ISSUE_TEMPLATE' in name and not name.endswith('config.yml')
]


@pytest.mark.parametrize('name', FORMS)
def test_forms_are_complete(name):
    form = yaml.safe_load(read(name))
    assert form['name'] and form['description']
    fields = [f for f in form['body'] if f['type'] != 'markdown']
    ids = [field['id'] for field in fields]
    assert len(set(ids)) == len(ids) > 0
    assert all(field['attributes']['label'] for field in fields)


def test_workflow():
    workflow = yaml.safe_load(read('.github/workflows/ci.yml'))
    steps = workflow['jobs']['test']['steps']
    assert '.ci/run' in [step.get('run') for step in steps]
    used = [step['uses'] for step in steps if 'uses' in step]
    # A whole version, not a branch or `v4`, which moves.
    assert all(re.fullmatch(r'[\w/-]+@v\d+\.\d+\.\d+', name) for name in used)
    (cache,) = (s['with'] for s in steps if 'cache' in s.get('uses', ''))
    folder = cache['path'].removeprefix('~/.cache')
    assert f'$HOME/.cache}}{folder}\n' in read('tools/misc/setup_env.sh')
    for name in re.findall(r"hashFiles\('(.*)'\)", cache['key']):
        assert (ROOT / name).is_file()


def test_image_copies_what_exists():
    ignored = [
        line.removeprefix('**/')
        for line in read('.dockerignore').splitlines()
        if line and not line.startswith('#')
    ]
    copies = re.findall(r'^COPY (.*) \S+$', read('Dockerfile'), re.M)
    sources = [source for line in copies for source in line.split()]
    assert {'.', 'mmdiffkd', 'Makefile'} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        parts = Path(source).parts
        assert not any(fnmatch(p, i) for p in parts for i in ignored), source
    # Everything that `make` looks at before it installs.
    (needed,) = re.findall(
        r'\$\(INSTALLED\): ((?:.*\\\n)*.*)', read('Makefile')
    )
    for name in re.findall(r'[\w./]+\.(?:py|sh)', needed):
        assert any(Path(name).is_relative_to(s) for s in sources if s != '.')


def test_versions_agree():
    changes = read('CHANGELOG.md')
    heading = r'^## \[(\d.*)\] - \d{4}-\d\d-\d\d$'
    released = re.findall(heading, changes, re.M)
    assert released[0] == __version__
    assert changes.count('\n## [Unreleased]\n') == 1
    assert yaml.safe_load(read('CITATION.cff'))['version'] == __version__
