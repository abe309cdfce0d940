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
    cpu, meta = torch.device('cpu'), torch.device('meta')

    def assert_computes(given, expected, device=cpu):
        assert computing_dtype(device, given) == expected
        layer = torch.nn.Linear(2, 2, device=device, dtype=given)
        feature = torch.ones(1, 2, device=device, dtype=given)
        assert layer(feature).dtype == expected

    assert_computes(torch.float32, torch.float32)
    with torch.autocast('cpu', dtype):
        assert_computes(torch.float32, dtype)
        assert_computes(torch.float64, torch.float64)
        # Autocast on one device is none on another.
        assert_computes(torch.float32, torch.float32, meta)
        with torch.autocast('cpu', enabled=False):
            assert_computes(torch.float32, torch.float32)


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
