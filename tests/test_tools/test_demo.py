import os
from pathlib import Path

from recipe_files import ROOT, run_tool

from mmdiffkd.analysis import demo


def test_command(monkeypatch, tmp_path):
    """A task is run in the root of the repository."""
    ran = []
    monkeypatch.setattr(
        demo, 'run_demo', lambda task: ran.append((task, Path.cwd()))
    )
    monkeypatch.chdir(tmp_path)
    run_tool(monkeypatch, 'misc/demo.py', '--task', 'det')
    assert ran == [(demo.TASKS['det'], ROOT)]
    assert os.listdir(tmp_path) == []
