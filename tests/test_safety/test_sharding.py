import math

import pytest
import torch
import torch.distributed as dist
from torch import nn

from mmdiffkd.safety import FSDPStrategy
from mmdiffkd.safety.sharding import _clip_sharded_grad_norm


@pytest.fixture
def one_process(tmp_path):
    dist.init_process_group(
        'gloo', f'file://{tmp_path}/meeting', rank=0, world_size=1
    )
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize('norm_type', [2.0, 1.0, math.inf])
def test_one_process_clips_as_torch_does(one_process, norm_type):
    parameters = [nn.Parameter(torch.ones(3)) for _ in range(2)]
    for i, parameter in enumerate(parameters):
        parameter.grad = torch.arange(3.0) + i
    twins = [nn.Parameter(p.detach().clone()) for p in parameters]
    for parameter, twin in zip(parameters, twins):
        twin.grad = parameter.grad.clone()
    norm = _clip_sharded_grad_norm(parameters, 0.5, norm_type)
    expected = nn.utils.clip_grad_norm_(twins, 0.5, norm_type)
    torch.testing.assert_close(norm, expected)
    for parameter, twin in zip(parameters, twins):
        torch.testing.assert_close(parameter.grad, twin.grad)


def test_units_that_the_model_lacks_are_named(tmp_path):
    strategy = FSDPStrategy(
        units='SwinBlock',
        work_dir=str(tmp_path),
        env_kwargs=dict(launcher='none'),
    )
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(
        ValueError, match=r"\['SwinBlock'\].*Sequential has none.*'Linear'"
    ):
        strategy._wrap_model(model)
