import subprocess
import sys

import pytest
from recipe_files import ROOT

TOOL = 'misc/check_compatibility.py'


@pytest.mark.slow
def test_command(tmp_path):
    out = tmp_path / 'compatibility.md'
    name = 'mmpretrain::shufflenet_v2/shufflenet-v2-1x_16xb64_in1k.py'
    command = [sys.executable, ROOT / 'tools' / TOOL, name, '--out', out]
    done = subprocess.run([*command, '--work-dir', tmp_path / 'work'])
    assert done.returncode == 0
    text = out.read_text()
    assert text.startswith('# Compatibility') and '1 of 1 work.' in text
