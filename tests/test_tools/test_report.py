import re

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
    other = write_run(tmp_path / 'zweiter-lauf')
    run_tool(monkeypatch, TOOL, folder, other, '--force', '--out', page)
    # Plotly's own text holds many words.
    text = re.sub('<script>.*?</script>', '', page.read_text(), flags=re.S)
    assert 'zweiter-lauf' in text


def test_no_run(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match='holds no run'):
        run_tool(monkeypatch, TOOL, tmp_path)
