import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / 'tools/misc/setup_env.sh'


def set_up(tmp_path, *part, **environment):
    return subprocess.run(
        ['bash', SCRIPT, tmp_path / 'venv', *part],
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
    return dict(
        PYTHON=complete, CXX='sh', XDG_CACHE_HOME=str(tmp_path / 'cache')
    )


def test_a_failing_step_shows_the_end_of_its_log(tmp_path):
    environment = fake_environment(tmp_path, 'echo no network; exit 1')
    result = set_up(tmp_path, **environment)
    assert result.returncode == 1
    assert 'failed' in result.stdout
    assert 'no network' in result.stdout
    assert 'torch' not in result.stdout


@pytest.fixture
def environment(tmp_path):
    """One in which mmcv is found once it is installed, as it was built."""
    mmcv = tmp_path / 'mmcv'
    return fake_environment(
        tmp_path,
        f"""echo "$*" >> {tmp_path / 'calls'}
        for last; do :; done
        case "$*" in
            *'print('*) echo one-build ;;
            *torch.cuda*) exit 1 ;;
            *-check' download '*)
                folder="${{*#*--dest }}"; folder="${{folder%% *}}"
                mkdir -p {tmp_path}/unpacked/onedl_mmcv
                tar -czf "$folder/mmcv.tar.gz" -C {tmp_path}/unpacked . ;;
            *-check' wheel '*)
                folder="${{*#*--wheel-dir }}"; folder="${{folder%% *}}"
                mkdir -p "$folder"
                echo operators > "$folder/onedl_mmcv.whl" ;;
            *' install '*onedl-mmcv==*) echo plain > {mmcv} ;;
            *' install '*.whl) cp "$last" {mmcv} ;;
            *'import mmcv.ops'*) grep -q operators {mmcv} ;;
            *'import mmcv;'*) test -f {mmcv} ;;
        esac""",
    )


def calls(tmp_path, verb):
    """What pip was asked to install, download or build since it was last."""
    log = tmp_path / 'calls'
    lines = log.read_text().splitlines()
    found = [line.partition(f'-check {verb} ') for line in lines]
    return [arguments for _, given, arguments in found if given]


def set_up_all(tmp_path, environment):
    (tmp_path / 'calls').unlink(missing_ok=True)
    result = set_up(tmp_path, **environment)
    assert result.returncode == 0, result.stdout


def test_classification_compiles_nothing(tmp_path, environment):
    environment['CXX'] = 'no-such-c++'
    result = set_up(tmp_path, 'classification', **environment)
    assert result.returncode == 0, result.stdout
    installs = calls(tmp_path, 'install')
    assert not calls(tmp_path, 'wheel')
    assert all('requirements/constraints.txt' in line for line in installs)
    (mmcv,) = (line for line in installs if 'onedl-mmcv' in line)
    assert '--no-cache-dir' in mmcv
    assert '--no-build-isolation' not in mmcv
    names = [line.split()[-1] for line in installs]
    assert names.index('torchvision') < names.index('onedl-mmpretrain')
    assert not any('openmmlab.txt' in line for line in installs)


def test_operators_are_compiled_once_a_machine(tmp_path, environment):
    set_up_all(tmp_path, environment)
    (built,) = calls(tmp_path, 'wheel')
    assert '--no-build-isolation' in built
    build = tmp_path / 'cache/mmdiffkd/one-build'
    assert (build / 'source').is_dir()
    (installed,) = (
        line for line in calls(tmp_path, 'install') if line.endswith('.whl')
    )
    assert '--force-reinstall' in installed and '--no-deps' in installed
    assert (tmp_path / 'mmcv').read_text() == 'operators\n'

    # A second call finds them; another environment takes the wheel.
    set_up_all(tmp_path, environment)
    assert not any('mmcv' in line for line in calls(tmp_path, 'install'))
    (tmp_path / 'mmcv').unlink()
    set_up_all(tmp_path, environment)
    assert not calls(tmp_path, 'wheel') and not calls(tmp_path, 'download')
    assert (tmp_path / 'mmcv').read_text() == 'operators\n'


def test_a_wheel_that_does_not_load_is_built_again(tmp_path, environment):
    set_up_all(tmp_path, environment)
    build = tmp_path / 'cache/mmdiffkd/one-build'
    (build / 'wheel/onedl_mmcv.whl').write_text('of another machine\n')
    (tmp_path / 'mmcv').unlink()
    set_up_all(tmp_path, environment)
    assert len(calls(tmp_path, 'wheel')) == 1
    assert not calls(tmp_path, 'download')
    assert (tmp_path / 'mmcv').read_text() == 'operators\n'


def test_a_failed_download_leaves_no_source(tmp_path, environment):
    python = tmp_path / 'venv/bin/python'
    script = python.read_text()
    executable(python, f'case "$*" in *" download "*) exit 1;; esac\n{script}')
    assert set_up(tmp_path, **environment).returncode == 1
    assert not (tmp_path / 'cache/mmdiffkd/one-build/source').exists()
    executable(python, script)
    set_up_all(tmp_path, environment)


@pytest.mark.parametrize(
    'log, expected',
    [
        ('Preparing metadata\n', ''),
        ('  [1/78] c++ a.cpp\n  [39/78] c++ b.cpp\n', '39 of 78 files'),
    ],
    ids=['not begun', 'half'],
)
def test_progress_is_that_of_ninja(tmp_path, log, expected):
    (tmp_path / 'log').write_text('[70/78] of another step\n' + log)
    function = re.search(
        r'^progress\(\) {.*?^}', SCRIPT.read_text(), re.DOTALL | re.MULTILINE
    )
    shell = f'set -euo pipefail\n{function[0]}\nLOG={tmp_path}/log\n'
    shell += 'progress 150 2; echo still here'
    told = subprocess.run(
        ['bash', '-c', shell], capture_output=True, check=True, text=True
    ).stdout
    assert told.endswith('still here\n')
    told = told.removesuffix('still here\n')
    assert (expected in told) if expected else told == ''
    assert ('about 3 min left' in told) == bool(expected)


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
