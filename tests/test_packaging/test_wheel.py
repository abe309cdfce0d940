import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from recipe_files import write_recipe

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """A wheel, built from a copy so that nothing is left in the folder."""
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'
    source.mkdir()
    for name in ('mmdiffkd', 'configs', 'tools', 'requirements'):
        shutil.copytree(
            ROOT / name,
            source / name,
            symlinks=True,
            ignore=shutil.ignore_patterns('__pycache__', '*.egg-info'),
        )
    for name in (
        'setup.py',
        'pyproject.toml',
        'MANIFEST.in',
        'README.md',
        'LICENSE',
        'model-index.yml',
    ):
        shutil.copy(ROOT / name, source)
    subprocess.run(
        [
            *(sys.executable, '-m', 'pip', 'wheel', '--quiet'),
            *('--no-deps', '--no-build-isolation', '--no-index'),
            *('--wheel-dir', folder, source),
        ],
        check=True,
    )
    (file,) = folder.glob('*.whl')
    return file


def shipped(folder, *endings):
    """What has to be in the wheel of a folder of the repository."""
    return {
        f'mmdiffkd/.mim/{path.relative_to(ROOT)}'
        for path in (ROOT / folder).rglob('*')
        if path.suffix in endings and '__pycache__' not in path.parts
    }


def test_configs_and_tools_are_in_the_wheel(wheel):
    names = set(ZipFile(wheel).namelist())
    expected = shipped('configs', '.py', '.yml', '.md')
    expected |= shipped('tools', '.py', '.sh')
    expected.add('mmdiffkd/.mim/model-index.yml')
    expected |= {
        f'mmdiffkd/analysis/report/{name}'
        for name in ('template.html', 'page.css', 'page.js')
    }
    assert 'mmdiffkd/.mim/tools/train.py' in expected
    assert expected - names == set()
    assert {n.split('/')[0] for n in names if 'dist-info' not in n} == {
        'mmdiffkd'
    }


def test_installing_replaces_no_openmmlab_package(wheel):
    archive = ZipFile(wheel)
    (name,) = (n for n in archive.namelist() if n.endswith('/METADATA'))
    metadata = archive.read(name).decode()
    required = [
        line.removeprefix('Requires-Dist: ')
        for line in metadata.splitlines()
        if line.startswith('Requires-Dist:') and 'extra ==' not in line
    ]
    assert 'torch' in required
    # Bare names: nothing that pip could take for a reason to upgrade.
    assert all(re.fullmatch(r'[\w-]+', entry) for entry in required)
    assert not any('mm' in entry for entry in required)
    assert {'openmmlab', 'tests', 'docs', 'all'} == set(
        re.findall('^Provides-Extra: (.*)', metadata, re.M)
    )


def test_configs_are_found_in_an_installed_wheel(wheel, tmp_path):
    with ZipFile(wheel) as archive:
        archive.extractall(tmp_path / 'site')
    config = tmp_path / 'config.py'
    config.write_text(
        "_base_ = 'mmdiffkd::baseline/resnet14-w4_1xb64-4e_digit-scenes.py'\n"
    )
    script = (
        'import mmdiffkd\n'
        'from mmengine.config import Config\n'
        f'print(mmdiffkd.__file__, Config.fromfile({str(config)!r})'
        '.model.type)'
    )
    result = subprocess.run(
        [sys.executable, '-c', script],
        check=True,
        capture_output=True,
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(tmp_path / 'site')},
        text=True,
    )
    file, model = result.stdout.split()
    assert Path(file).is_relative_to(tmp_path)
    assert model == 'ImageClassifier'


def test_configs_name_no_path_of_this_repository():
    """Where an installed package trains, there is no folder ``configs``."""
    for path in (ROOT / 'configs').rglob('*.py'):
        assert "'configs/" not in path.read_text(), path


@pytest.fixture(scope='module')
def site(wheel, tmp_path_factory):
    """A folder on the path with what an installation puts there."""
    folder = tmp_path_factory.mktemp('site')
    with ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def as_mim_does(site, config, port):
    """The command that ``mim train`` runs, see OpenMIM 0.3.9."""
    script = site / 'mmdiffkd' / '.mim' / 'tools' / 'train.py'
    return [
        *(sys.executable, '-m', 'torch.distributed.launch'),
        *('--nproc_per_node=1', f'--master_port={port}', script, config),
        *('--launcher', 'pytorch', '--work-dir', 'run'),
    ]


def by_mim(site, config, port):
    """``mim train`` itself; its command-line script may be elsewhere."""
    return [
        *(sys.executable, '-c', 'from mim.cli import cli; cli()'),
        *('train', 'mmdiffkd', config, '--launcher', 'pytorch'),
        *('--gpus', '1', '--port', str(port), '--work-dir', 'run'),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    'command',
    [
        as_mim_does,
        pytest.param(
            by_mim,
            marks=pytest.mark.skipif(
                importlib.util.find_spec('mim') is None,
                reason='needs openmim',
            ),
        ),
    ],
)
def test_mim_trains(site, tmp_path, command):
    recipe = write_recipe(tmp_path)
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    result = subprocess.run(
        command(site, recipe / 'distiller.py', port),
        cwd=tmp_path,
        capture_output=True,
        env={
            **os.environ,
            'PYTHONPATH': str(site),
            'CUDA_VISIBLE_DEVICES': '',
        },
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    checkpoint = torch.load(tmp_path / 'run/epoch_1.pth', weights_only=False)
    assert checkpoint['meta']['iter'] == 2
    assert checkpoint['distill_state_dict']
