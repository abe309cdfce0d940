"""The configs that docs/scaling.md shows, beside a recipe."""

import inspect
import re
from pathlib import Path

import pytest
from mmengine.registry import STRATEGIES

from mmdiffkd.utils import load_config

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = dict(
    re.findall(
        r'^### (\w+)\n\n```python\n(.*?)^```',
        (ROOT / 'docs/scaling.md').read_text(),
        re.M | re.S,
    )
)


@pytest.fixture
def config(request, tmp_path):
    file = tmp_path / 'config.py'
    file.write_text(BLOCKS[request.param])
    return load_config(str(file))


@pytest.mark.parametrize('config', ['FSDP', 'DeepSpeed'], indirect=True)
def test_recipe_gets_a_strategy(config):
    assert config.runner_type == 'FlexibleRunner'
    assert config.model.type == 'mmdiffkd.Distiller'
    kind = STRATEGIES.get(config.strategy.type)
    known = inspect.signature(kind).parameters
    assert config.strategy.keys() - {'type'} <= known.keys()


@pytest.mark.parametrize('config', ['DeepSpeed'], indirect=True)
def test_deepspeed_clips_by_itself(config):
    assert config.optim_wrapper.type == 'DeepSpeedOptimWrapper'
    assert config.optim_wrapper.clip_grad is None
    assert config.strategy.gradient_clipping > 0


@pytest.mark.parametrize('config', ['DeepSpeed'], indirect=True)
def test_deepspeed_takes_the_settings(config, tmp_path):
    pytest.importorskip('deepspeed')
    strategy = STRATEGIES.build(
        dict(
            config.strategy,
            work_dir=str(tmp_path),
            env_kwargs=dict(launcher='none'),
        )
    )
    assert strategy.config['zero_optimization'] == dict(stage=2)
    assert strategy.config['zero_allow_untested_optimizer'] is True
