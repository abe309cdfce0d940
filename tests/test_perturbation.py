import pytest
import torch
from perturbation import Perturbation, move
from torch import nn
from torch.nn import functional as F

EDGES = [0.0, -0.0, 1.0, -1.0, 3.0, 1e-7, torch.inf, -torch.inf, torch.nan]


@pytest.mark.parametrize(
    'dtype', [torch.float64, torch.float32, torch.float16, torch.bfloat16]
)
def test_moves_by_one_unit(dtype):
    values = torch.tensor(EDGES * 40, dtype=dtype)
    result = values.clone()
    move(result, seed=1)
    finite = values.isfinite()
    torch.testing.assert_close(
        result[~finite], values[~finite], rtol=0, atol=0, equal_nan=True
    )
    size = values[finite].abs()
    unit = size.nextafter(torch.tensor(torch.inf, dtype=dtype)) - size
    steps = (result - values)[finite] / unit
    for step in (-1, 0, 1):
        assert 0.2 < (steps == step).double().mean() < 0.5


def test_same_result_is_moved_alike():
    x = torch.randn(2, 8, 4, 4)
    results = x.clone(), x.to(memory_format=torch.channels_last), x.clone()
    for result, seed in zip(results, (1, 1, 2)):
        move(result, seed)
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    assert not torch.equal(results[0], x)


@pytest.mark.parametrize(
    'function',
    [
        lambda x: x @ x.mT,
        lambda x: torch.einsum('bchw,bchv->bwv', x, x),
        lambda x: torch.cdist(x, x + 1),
        nn.Linear(4, 3),
        nn.Linear(4, 3, bias=False),
        nn.Conv2d(8, 3, 3),
        nn.ConvTranspose2d(8, 3, 3),
        lambda x: F.conv1d(x[0], torch.ones(2, 4, 1), torch.ones(2)),
        lambda x: F.scaled_dot_product_attention(x, x, x),
    ],
)
def test_products_are_moved(function):
    x = torch.randn(2, 8, 4, 4, requires_grad=True)
    before = function(x)
    with Perturbation(1):
        first, second = function(x), function(x)
    assert torch.equal(first, second)
    assert not torch.equal(first, before)
    torch.testing.assert_close(first, before, rtol=1e-6, atol=1e-6)
    (before_grad,) = torch.autograd.grad(before.sum(), x)
    (grad,) = torch.autograd.grad(first.sum(), x)
    torch.testing.assert_close(grad, before_grad)


def test_cancelled_product_is_moved_as_far_as_its_terms():
    layer = nn.Linear(8, 1000).requires_grad_(False)
    x = torch.ones(1, 8)
    layer.bias.copy_(-(layer.weight @ x[0]))
    with Perturbation(1):
        rest = layer(x)
    assert 1e-8 < rest.abs().max() < 1e-6


def test_what_has_no_last_place_is_left():
    whole = torch.full((2, 2), 3)
    with Perturbation(1):
        assert (
            nn.Linear(4, 3).to('meta')(torch.ones(2, 4, device='meta')).is_meta
        )
        assert torch.equal(whole @ whole, torch.full((2, 2), 18))
