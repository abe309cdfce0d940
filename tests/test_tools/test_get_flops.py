import json
import re
from collections import OrderedDict

import pytest
from mmengine.logging import MMLogger
from recipe_files import ROOT, run_tool, write_recipe

TOOL = 'analysis_tools/get_flops.py'


def blocks_of_output():
    """The commands of docs/scaling.md, and what stands below each."""
    return re.findall(
        r'^```bash\npython tools/analysis_tools/get_flops.py \\\n'
        r'    (\S+) (.*?)\n```\n\n```text\n(.*?)```',
        (ROOT / 'docs/scaling.md').read_text(),
        re.M | re.S,
    )


def test_documents_show_outputs():
    assert len(blocks_of_output()) >= 3


@pytest.mark.slow
@pytest.mark.parametrize('config, flags, output', blocks_of_output())
def test_documented_output(monkeypatch, capsys, config, flags, output):
    run_tool(monkeypatch, TOOL, str(ROOT / config), *flags.split())
    assert capsys.readouterr().out == output


def test_command(tmp_path, monkeypatch, capsys):
    # A logger made in an earlier test would write to that test's stdout.
    monkeypatch.setattr(MMLogger, '_instance_dict', OrderedDict())
    config = write_recipe(tmp_path) / 'distiller.py'
    run_tool(monkeypatch, TOOL, config, '--json', '--shape', '32', '32')
    costs = json.loads(capsys.readouterr().out)
    assert costs['shape'] == [32, 32]
    assert costs['step_ratio'] > 1
    run_tool(monkeypatch, TOOL, config)
    out = capsys.readouterr().out
    assert 'images of 16 x 16' in out
    assert "necks of 'feature', forward" in out
    assert 'times the arithmetic' in out
