from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmdiffkd.safety import MissingWeightsHook


@pytest.fixture
def runner():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    return SimpleNamespace(model=model, _load_from='there.pth')


def load(runner, state, **settings):
    MissingWeightsHook(**settings).after_load_checkpoint(runner, state)


def test_what_is_missing_is_named(runner):
    state = runner.model.state_dict()
    state.pop('1.num_batches_tracked')
    load(runner, dict(state_dict={f'module.{k}': v for k, v in state.items()}))
    state.pop('0.bias')
    with pytest.raises(ValueError, match=r"there\.pth.*lacks 1 .*'0\.bias'"):
        load(runner, state)
    load(runner, state, ignored='0.')


def test_another_shape_is_refused(runner):
    state = {**runner.model.state_dict(), '0.bias': torch.ones(3)}
    with pytest.raises(ValueError, match=r'(?s)there\.pth.*0\.bias'):
        load(runner, state)
