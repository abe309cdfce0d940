import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from recipe_files import run_tool

from mmdiffkd.analysis.gpu_report import SECTIONS

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / 'tools/misc/gpu_report.sh'
RELEASED = 'lib/models/losses/diffkd'
REFERENCE = os.environ.get('MMDIFFKD_REFERENCE')


def script(*arguments, python):
    return subprocess.run(
        ['bash', SCRIPT, *map(str, arguments)],
        capture_output=True,
        env={**os.environ, 'PYTHON': str(python)},
        text=True,
    )


@pytest.fixture
def stand_in(tmp_path):
    """A python that has nothing, and notes how it is called."""
    path = tmp_path / 'python'
    path.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n[ "$1" != -c ]\n'
    )
    path.chmod(0o755)
    return path


def test_what_is_taken_along(stand_in, tmp_path):
    checkout, folder = tmp_path / 'checkout', tmp_path / 'wheels'
    (checkout / RELEASED).mkdir(parents=True)
    (checkout / RELEASED / '__init__.py').write_text('# theirs')
    result = script('--prepare', folder, checkout, python=stand_in)
    assert result.returncode == 0, result.stderr
    sources, wheels = (tmp_path / 'calls').read_text().splitlines()
    assert sources.startswith('-m pip wheel')
    assert sources.endswith('onedl-mmcv onedl-mmengine onedl-mmpretrain')
    assert '--python-version 3.12 --only-binary :all:' in wheels
    for call in (sources, wheels):
        assert '--constraint requirements/constraints.txt' in call
    copied = folder / RELEASED / '__init__.py'
    assert copied.read_text() == '# theirs'
    with (folder / 'large.whl').open('w') as file:
        file.truncate(50 * 2**20)
    result = script('--prepare', folder, python=stand_in)
    assert result.returncode == 1
    assert 'not below 50 MiB' in result.stdout


def test_what_the_machine_must_have(stand_in, tmp_path):
    result = script(tmp_path, tmp_path / 'out', python=stand_in)
    assert result.returncode == 1
    missing = 'torch torchvision numpy cv2 matplotlib PIL pytest'
    assert f'has no {missing}. These are too large' in result.stdout


def test_how_to_call_it(stand_in):
    result = script(python=stand_in)
    assert result.returncode == 1
    assert 'tools/misc/gpu_report.sh --prepare WHEELS' in result.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_a_gpu_is_needed(monkeypatch, capsys, tmp_path):
    tool = 'analysis_tools/gpu_report.py'
    with pytest.raises(SystemExit):
        run_tool(monkeypatch, tool, '--out', tmp_path)
    assert 'A dry run is --device cpu --small' in capsys.readouterr().err


def write_wheel(folder):
    """One that holds a single module."""
    with zipfile.ZipFile(folder / 'alone-1-py3-none-any.whl', 'w') as wheel:
        info = 'alone-1.dist-info'
        wheel.writestr('alone.py', '')
        wheel.writestr(
            f'{info}/METADATA',
            'Metadata-Version: 2.1\nName: alone\nVersion: 1\n',
        )
        wheel.writestr(
            f'{info}/WHEEL',
            'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
        )
        wheel.writestr(f'{info}/RECORD', '')


@pytest.mark.slow
def test_dry_run(tmp_path):
    """All of it, the released module too if MMDIFFKD_REFERENCE names it."""
    write_wheel(tmp_path)
    if REFERENCE:
        (tmp_path / RELEASED).parent.mkdir(parents=True)
        (tmp_path / RELEASED).symlink_to(Path(REFERENCE, RELEASED).resolve())
    out = tmp_path / 'out'
    options = ['--device', 'cpu', '--small']
    result = script(tmp_path, out, *options, python=sys.executable)
    assert result.returncode == 0, result.stderr
    sections = json.loads((out / 'gpu_report.json').read_text())
    page = (out / 'gpu_report.md').read_text()
    assert list(sections) == list(SECTIONS)
    for title, section in sections.items():
        assert section['problem'] is None, title
        assert f'\n## {title}\n\n|  |' in page
    machine, tests, step, *necks = sections.values()
    assert machine['rows'][0]['part'] == 'device'
    if not torch.cuda.is_available():
        passed, *failures = tests['rows']
        assert passed == {'part': 'passed', 'count': 0}
        assert failures and all(row['note'] for row in failures)
    parts = ['student', 'teacher, forward']
    parts += ['distill.feature', 'distill.logits', 'whole step']
    names = [row['part'] for row in step['rows']]
    assert names == parts * 2 + ['whole step'] * 2
    assert all(row['ms'] > 0 for row in step['rows'])
    for section in necks:
        forms = ['eager', 'captured', 'compiled']
        owners = ['ours', 'released'] if REFERENCE else ['ours']
        expected = {
            (owner, form, precision)
            for owner in owners
            for form in forms
            for precision in ('float32', 'bf16')
        }
        rows = {
            (row['part'], row['form'], row['precision']): row
            for row in section['rows']
        }
        assert rows.keys() == expected
        for (_, form, _), row in rows.items():
            if form == 'captured':
                assert "on device='cpu'" in row['note']
            else:
                assert row['peak_mib'] > 0
                assert ('ratio' in row) == bool(REFERENCE)
