import pytest
from recipe_files import run_tool
from report_runs import write_run

TOOL = 'analysis_tools/report.py'


def test_command(tmp_path, monkeypatch, capsys):
    folder = write_run(tmp_path / 'run')
    run_tool(monkeypatch, TOOL, folder)
    page = folder / 'report.html'
    assert capsys.readouterr().out == f'{page}\n'
    with pytest.raises(SystemExit, match='is there already'):
        run_tool(monkeypatch, TOOL, folder)
    other = write_run(tmp_path / 'other')
    run_tool(monkeypatch, TOOL, folder, other, '--force', '--out', page)
    assert 'other' in page.read_text()


def test_no_run(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match='holds no run'):
        run_tool(monkeypatch, TOOL, tmp_path)
