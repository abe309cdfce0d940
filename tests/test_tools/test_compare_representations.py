import json

import torch
from recipe_files import run_tool, write_recipe

from mmdiffkd.models.distillers.teacher import build_from_config
from mmdiffkd.utils import load_config

TOOL = 'analysis_tools/compare_representations.py'


def test_command(monkeypatch, tmp_path, capsys):
    student = str(tmp_path / 'student.pth')
    write_recipe(tmp_path, teacher=student)
    network = build_from_config(load_config(tmp_path / 'plain.py'))
    torch.save(network.state_dict(), student)
    out = tmp_path / 'folder/result.json'
    run_tool(
        monkeypatch,
        TOOL,
        tmp_path / 'distiller.py',
        student,
        '--entry=feature',
        f'--out={out}',
        '--cfg-options',
        'model.distill.feature.at=backbone.features.0',
    )
    found = json.loads(out.read_text())
    assert found['entry'] == 'feature'
    assert found['student_at'] == ['backbone.features.0']
    text = capsys.readouterr().out
    assert f'{found["students"][0]["cka"][0]:.4f}' in text
    assert 'student.pth' in text
