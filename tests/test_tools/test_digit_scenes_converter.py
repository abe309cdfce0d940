import importlib.util
import sys
from pathlib import Path

import pytest
from PIL import Image

from mmdiffkd.datasets.digit_scenes import is_complete

TOOL = (
    Path(__file__).resolve().parents[2]
    / 'tools/dataset_converters/digit_scenes.py'
)
SIZES = dict(train=3, val=2, test=1)


@pytest.fixture
def call(monkeypatch, tmp_path, capsys):
    """Run the tool in an empty folder; gives what it printed."""
    spec = importlib.util.spec_from_file_location('convert', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.chdir(tmp_path)

    def function(arguments: str) -> str:
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *arguments.split()])
        tool.main()
        return capsys.readouterr().out

    return function


def test_writes_what_is_asked_and_says_where(call, tmp_path):
    out = call('--tasks cls seg --sizes 3 2 1')
    root = tmp_path / 'data/digit_scenes'
    assert is_complete(root, 'cls', SIZES) and is_complete(root, 'seg', SIZES)
    assert not (root / 'det').exists()
    for task in ('cls', 'seg'):
        assert f'{task}: {root / task}' in out


def test_leaves_what_is_complete(call, tmp_path):
    arguments = '--out here --tasks det --sizes 3 2 1'
    call(arguments)
    written = (tmp_path / 'here/det/digit_scenes.json').stat().st_mtime_ns
    assert 'is complete' in call(arguments)
    manifest = tmp_path / 'here/det/digit_scenes.json'
    assert manifest.stat().st_mtime_ns == written
    assert 'is complete' not in call(f'{arguments} --force')
    assert manifest.stat().st_mtime_ns > written


def test_completes_what_is_not(call, tmp_path):
    arguments = '--out here --tasks det --sizes 3 2 1'
    call(arguments)
    (tmp_path / 'here/det/train/000001.png').unlink()
    assert 'is complete' not in call(arguments)
    assert is_complete(tmp_path / 'here', 'det', SIZES)


def test_an_earlier_version_is_said_and_written_again(call, tmp_path):
    arguments = '--out here --tasks seg --sizes 3 2 1'
    assert 'earlier version' not in call(arguments)
    for part in ('leftImg8bit', 'gtFine'):
        split = tmp_path / 'here/seg' / part / 'val'
        split.rename(split.with_name('tuning'))
    assert 'here/seg is from an earlier version' in call(arguments)
    assert is_complete(tmp_path / 'here', 'seg', SIZES)
    assert not list(tmp_path.rglob('tuning'))


def test_seed(call, tmp_path):
    call('--out here --tasks cls --sizes 3 2 1 --seed 5')
    assert is_complete(tmp_path / 'here', 'cls', SIZES, seed=5)
    assert not is_complete(tmp_path / 'here', 'cls', SIZES)


def test_preview(call, tmp_path):
    assert 'sheet.png' in call('--preview pictures/sheet.png')
    with Image.open(tmp_path / 'pictures/sheet.png') as sheet:
        assert sheet.size == (768, 416)
    assert not (tmp_path / 'data').exists()


def test_unknown_task(call, capsys):
    with pytest.raises(SystemExit):
        call('--tasks pose')
    assert 'invalid choice' in capsys.readouterr().err
