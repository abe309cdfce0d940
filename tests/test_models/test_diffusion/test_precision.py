import pytest
import torch

from mmdiffkd.models.diffusion.precision import (
    at_least_float32,
    computing_dtype,
    untracked,
)


@pytest.mark.parametrize(
    'given, kept',
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_dtype(given, kept):
    assert at_least_float32(torch.ones(2, dtype=given)).dtype == kept


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_computing_dtype(dtype):
    parameter = torch.ones(2)
    assert computing_dtype(parameter) == torch.float32
    assert computing_dtype(parameter.double()) == torch.float64
    with torch.autocast('cpu', dtype):
        assert computing_dtype(parameter) == dtype
        assert (parameter[None] @ parameter[:, None]).dtype == dtype
        # Autocast on one device is none on another.
        assert computing_dtype(parameter.to('meta')) == torch.float32
        with torch.autocast('cpu', enabled=False):
            assert computing_dtype(parameter) == torch.float32


@pytest.mark.parametrize('enabled', [True, False])
def test_untracked_leaves_gradients_to_what_follows(enabled):
    layer = torch.nn.Linear(3, 2)
    feature = torch.ones(4, 3)
    with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
        with untracked(feature.device):
            untracked_output = layer(feature)
            assert torch.is_autocast_enabled('cpu') == enabled
            if enabled:
                assert not torch.is_autocast_cache_enabled()
        assert torch.is_autocast_cache_enabled()
        output = layer(feature)
    assert not untracked_output.requires_grad
    assert torch.equal(untracked_output, output)
    output.sum().backward()
    assert layer.weight.grad.abs().sum() > 0


def test_untracked_on_meta():
    with (
        torch.autocast('cpu', torch.bfloat16),
        untracked(torch.device('meta')),
    ):
        assert not torch.is_grad_enabled()
