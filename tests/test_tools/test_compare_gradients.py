from collections import OrderedDict

from mmengine.logging import MMLogger
from recipe_files import run_tool, write_recipe

TOOL = 'analysis_tools/compare_gradients.py'


def test_command(tmp_path, monkeypatch, capsys):
    config = write_recipe(tmp_path) / 'distiller.py'
    work_dir = tmp_path / 'work'
    run_tool(monkeypatch, 'train.py', config, f'--work-dir={work_dir}')
    capsys.readouterr()
    # The logger of the training would write to standard output.
    monkeypatch.setattr(MMLogger, '_instance_dict', OrderedDict())
    checkpoint = work_dir / 'epoch_1.pth'
    run_tool(monkeypatch, TOOL, config, checkpoint, '--batches=1')
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith('| grad_steps |') and len(lines) == 7
    assert lines[-1] == '| 5 | 1.000 | 1.000 | 1.000 | 1.000 |'
