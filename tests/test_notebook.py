"""The notebook runs, and says and shows what it announces."""

import re
import shutil
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / 'demo/distill_your_own.ipynb'


def code_of(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == 'code']


def test_it_is_kept_without_outputs():
    notebook = nbformat.read(NOTEBOOK, 4)
    nbformat.validate(notebook)
    assert len(code_of(notebook)) >= 6
    assert not any(cell.outputs for cell in code_of(notebook))


def test_it_installs_the_pinned_packages_without_operators():
    """As tools/misc/setup_env.sh does for classification."""
    install = code_of(nbformat.read(NOTEBOOK, 4))[0].source
    script = (ROOT / 'tools/misc/setup_env.sh').read_text()
    for name in ('onedl-mmcv', 'onedl-mmpretrain', 'torchvision'):
        assert f"'{name}'" in install and name in script
    assert "'--no-cache-dir', 'onedl-mmcv'" in install
    assert 'requirements/constraints.txt' in install
    assert 'onedl-mmdet' not in install


@pytest.mark.slow
def test_it_runs(tmp_path, monkeypatch):
    from nbclient import NotebookClient

    # Where the notebook lies: `..` is the root of the repository.
    for name in ('tools', 'mmdiffkd', 'requirements'):
        (tmp_path / name).symlink_to(ROOT / name)
    folder = tmp_path / 'demo'
    folder.mkdir()
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    notebook = nbformat.read(NOTEBOOK, 4)
    resources = dict(metadata=dict(path=str(folder)))
    NotebookClient(notebook, timeout=1800, resources=resources).execute()
    *_, teacher, _, student, panel, predicted = (
        cell.outputs for cell in code_of(notebook)
    )
    found = re.findall(r'accuracy/top1: (\S+)', said(teacher))
    assert len(found) == 2
    # A guess is right one time in ten.
    assert float(found[0]) > 40
    (distilled,) = re.findall(r'accuracy/top1: (\S+)', said(student))
    assert float(distilled) > 20
    assert any('image/png' in output.get('data', {}) for output in panel)
    assert len(re.findall('is taken for', said(predicted))) == 5
    assert (folder / 'notebook_run/student.pth').is_file()
    shutil.rmtree(folder)


def said(outputs: list) -> str:
    return ''.join(output.get('text', '') for output in outputs)
