"""The page on foundation models, step by step."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_recipes

from mmdiffkd.datasets.digit_scenes import write_scenes
from mmdiffkd.utils import load_config

pytest.importorskip('transformers')
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'docs/foundation_models.md').read_text()
STAND_IN, ONE, SEVERAL = re.findall('^```python\n(.*?)^```', PAGE, re.M | re.S)
SIZES = dict(train=64, val=4, test=4)
COMMANDS = '\n'.join(re.findall('^```bash\n(.*?)^```', PAGE, re.M | re.S))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the data and with what the page writes."""
    monkeypatch.chdir(tmp_path)
    exec(STAND_IN, {})
    Path('dinov2_retinanet.py').write_text(ONE)
    first = "_base_ = 'dinov2_retinanet.py'\n"
    Path('several.py').write_text(first + SEVERAL)
    return tmp_path


@pytest.mark.parametrize('name', ['dinov2_retinanet', 'several'])
def test_the_configs_of_the_page_train(folder, name, monkeypatch):
    write_scenes('data/digit_scenes', 'det', dict(train=4, val=2, test=2))
    config = load_config(f'{name}.py')
    config.work_dir = str(folder / 'work')
    config.train_dataloader.update(
        batch_size=2, num_workers=0, persistent_workers=False
    )
    config.train_cfg.max_epochs = 1
    for split in ('val', 'test'):
        for part in ('dataloader', 'cfg', 'evaluator'):
            config[f'{split}_{part}'] = None
    runner = tiny_recipes.train(config)
    assert runner.iter == 2
    model = runner.model
    assert [*model.teachers] == (
        ['dino', 'det'] if name == 'several' else ['teacher']
    )
    (tokens,) = model.distill.tokens.levels
    assert tokens.shapes[1][2:] == (16, 16)
    assert tokens.layouts[1].prefix_tokens == 1
    plain = load_config(folder / 'work' / 'student.py')
    assert plain.model.type == 'RetinaNet'


@pytest.mark.slow
def test_the_commands_of_the_page_run(folder):
    """In their order, on fewer scenes."""
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    for command in filter(None, COMMANDS.splitlines()):
        program, tool, *arguments = shlex.split(command)
        assert program == 'python'
        if 'dataset_converters' in tool:
            write_scenes('data/digit_scenes', 'det', SIZES)
            continue
        done = subprocess.run(
            [sys.executable, ROOT / tool, *arguments],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    assert (folder / 'work_dirs/fine-tuned/epoch_1.pth').is_file()
