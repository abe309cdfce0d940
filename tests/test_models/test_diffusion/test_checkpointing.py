import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmdiffkd.analysis.memory import peak_memory
from mmdiffkd.models.diffusion.checkpointing import (
    checkpointed,
    frozen_statistics,
)

NORMS = {
    'batch norm': lambda: nn.BatchNorm2d(8),
    'cumulative': lambda: nn.BatchNorm2d(8, momentum=None),
    'untracked': lambda: nn.BatchNorm2d(8, track_running_stats=False),
    'eval': lambda: nn.BatchNorm2d(8).eval(),
}


def network(norm):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        norm(),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Conv2d(8, 3, 1),
    )


def train(module, call, feature):
    """Two calls in one backward pass: output, gradients and buffers."""
    torch.manual_seed(1)
    feature = feature.clone().requires_grad_()
    output = call(module, feature) + 2 * call(module, 3 * feature)
    F.mse_loss(output, torch.ones_like(output)).backward()
    gradients = [p.grad for p in module.parameters()]
    return output, feature.grad, gradients, dict(module.named_buffers())


@pytest.mark.exact
@pytest.mark.parametrize('norm', NORMS.values(), ids=NORMS.keys())
def test_changes_nothing(norm):
    plain = network(norm)
    saving = copy.deepcopy(plain)
    feature = torch.randn(4, 3, 9, 9)
    expected = train(plain, lambda m, x: m(x), feature)
    actual = train(saving, lambda m, x: checkpointed(m, m, x), feature)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    assert list(saving.state_dict()) == list(plain.state_dict())
    assert saving[1].momentum == plain[1].momentum


def test_counts_a_pass_once():
    module = network(NORMS['batch norm'])
    train(module, lambda m, x: checkpointed(m, m, x), torch.randn(4, 3, 9, 9))
    assert module[1].num_batches_tracked == 2


def test_a_function_with_inputs_of_all_kinds():
    module = network(NORMS['batch norm'])
    feature = torch.randn(4, 3, 9, 9, requires_grad=True)

    def stage(tensor, scale, missing):
        assert missing is None
        return module(scale * tensor), scale

    output, scale = checkpointed(module, stage, feature, 2, None)
    output.sum().backward()
    assert scale == 2
    assert feature.grad.abs().sum() > 0


def test_frozen_statistics_thaw():
    module = network(NORMS['batch norm'])
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(RuntimeError), frozen_statistics(module):
        module(torch.randn(4, 3, 9, 9))
        torch.testing.assert_close(
            {n: b for n, b in before.items() if 'running' in n},
            {n: b for n, b in module.state_dict().items() if 'running' in n},
        )
        raise RuntimeError
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)
    module(torch.randn(4, 3, 9, 9))
    assert module[1].num_batches_tracked == 1
    assert module[1].running_mean.abs().sum() > 0


def test_keeps_the_inputs_alone():
    module = nn.Sequential(*[nn.Conv2d(3, 3, 1) for _ in range(12)])
    feature = torch.randn(4, 3, 64, 64, requires_grad=True)
    size = feature.nbytes
    kept = []

    def plain():
        kept[:] = [module(feature)]

    def saving():
        kept[:] = [checkpointed(module, module, feature)]

    # What a convolution needs while it works is its kernel's own matter.
    with torch.no_grad():
        working = peak_memory(lambda: module(feature))
    assert peak_memory(plain) > working + 8 * size
    assert peak_memory(saving) < working + 2 * size
