import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / 'tools/misc/setup_env.sh'


def set_up(tmp_path, **environment):
    return subprocess.run(
        ['bash', SCRIPT, tmp_path / 'venv'],
        capture_output=True,
        env={**os.environ, **environment},
        text=True,
    )


def executable(path, script):
    path.write_text(f'#!/bin/sh\n{script}\n')
    path.chmod(0o755)
    return str(path)


def test_what_the_machine_lacks_is_told_at_once(tmp_path):
    result = set_up(tmp_path, PYTHON='no-such-python', CXX='no-such-c++')
    assert result.returncode == 1
    assert 'no-such-python: install Python 3.10' in result.stdout
    assert 'a C++ compiler (no-such-c++)' in result.stdout
    assert not (tmp_path / 'venv').exists()


def test_another_python_is_refused(tmp_path):
    old = executable(
        tmp_path / 'python',
        'if [ "$1" = -V ]; then echo Python 3.9.1; else exit 1; fi',
    )
    result = set_up(tmp_path, PYTHON=old)
    assert result.returncode == 1
    assert f'{old} is Python 3.9.1' in result.stdout


def fake_environment(tmp_path, script):
    """A virtual environment whose python is a shell script."""
    folder = tmp_path / 'venv/bin'
    folder.mkdir(parents=True)
    executable(folder / 'python', script)
    complete = executable(tmp_path / 'complete-python', 'exit 0')
    return dict(PYTHON=complete, CXX='sh')


def test_a_failing_step_shows_the_end_of_its_log(tmp_path):
    environment = fake_environment(tmp_path, 'echo no network; exit 1')
    result = set_up(tmp_path, **environment)
    assert result.returncode == 1
    assert 'failed' in result.stdout
    assert 'no network' in result.stdout
    assert 'torch' not in result.stdout


def test_operators_that_do_not_load_are_built_again(tmp_path):
    calls = tmp_path / 'calls'
    environment = fake_environment(
        tmp_path,
        f"""echo "$*" >> {calls}
        case "$*" in
            *"import mmcv.ops"*) grep -q -- --no-cache-dir {calls} ;;
            *torch.cuda*) exit 1 ;;
        esac""",
    )
    result = set_up(tmp_path, **environment)
    assert result.returncode == 0, result.stdout
    installs = [
        line.partition(' install ')[2]
        for line in calls.read_text().splitlines()
        if ' install ' in line
    ]
    names = [line.split()[-1] for line in installs]
    assert names.index('torchvision') < names.index('onedl-mmcv')
    first, again = (line for line in installs if line.endswith('onedl-mmcv'))
    assert '--no-build-isolation' in first and '--no-cache' not in first
    for flag in ('--no-build-isolation', '--force-reinstall', '--no-deps'):
        assert flag in again
    assert all('requirements/constraints.txt' in line for line in installs)


@pytest.mark.skipif(shutil.which('make') is None, reason='needs make')
def test_make_lists_its_targets():
    result = subprocess.run(
        ['make', '-C', ROOT, 'help'],
        capture_output=True,
        check=True,
        text=True,
    )
    for target in (
        *('demo', 'test', 'lint', 'format', 'test-numerics', 'test-slow'),
        *('test-fuzz', 'test-gpu', 'clean', 'distclean'),
    ):
        assert f'\n{target} ' in result.stdout


def test_ci_runs_the_test_command_first():
    lines = (ROOT / '.ci/run').read_text().splitlines()
    assert [line for line in lines if line.startswith('make')] == [
        'make test',
        'make test-numerics',
        'make test-slow',
    ]
    assert os.access(ROOT / '.ci/run', os.X_OK)
