import pytest
import torch

from mmdiffkd.models.diffusion.memory_format import (
    best_memory_format,
    lay_out,
    memory_format_of,
)

PLAIN, LAST = torch.contiguous_format, torch.channels_last
SHAPE = (2, 3, 4, 5)


def a_map(memory_format, **options):
    return torch.randn(SHAPE).to(memory_format=memory_format, **options)


@pytest.mark.parametrize(
    'channels, device, dtype, autocast, expected',
    [
        (31, 'cpu', torch.float32, None, PLAIN),
        (32, 'cpu', torch.float32, None, LAST),
        (19, 'cpu', torch.float32, torch.bfloat16, LAST),
        (19, 'cpu', torch.bfloat16, None, LAST),
        (256, 'cpu', torch.float64, None, PLAIN),
        (256, 'cpu', torch.float16, None, PLAIN),
        (256, 'meta', torch.float32, torch.bfloat16, PLAIN),
    ],
)
def test_rule(channels, device, dtype, autocast, expected):
    with torch.autocast('cpu', autocast, enabled=autocast is not None):
        found = best_memory_format(channels, torch.device(device), dtype)
    assert found == expected


def test_memory_format_of():
    assert memory_format_of(a_map(PLAIN)) == PLAIN
    assert memory_format_of(a_map(LAST)) == LAST
    assert memory_format_of(torch.ones(2, 3)) == PLAIN
    # What lies both ways, and what lies in neither.
    assert memory_format_of(torch.ones(2, 3, 1, 1)) == PLAIN
    assert memory_format_of(torch.ones(2, 1, 4, 5)) == PLAIN
    assert memory_format_of(torch.ones(1, 1, 1, 1).expand(SHAPE)) == PLAIN


@pytest.mark.parametrize('given', [PLAIN, LAST])
@pytest.mark.parametrize('wanted', [PLAIN, LAST, None])
@pytest.mark.parametrize('returned', [PLAIN, LAST])
def test_lays_out_forwards_and_backwards(given, wanted, returned):
    tensor = a_map(given).requires_grad_()
    seen = []
    before = tensor * 2
    before.register_hook(seen.append)
    result = lay_out(before, wanted)
    assert memory_format_of(result) == (wanted or given)
    assert torch.equal(result, before)

    gradient = a_map(returned)
    result.backward(gradient)
    assert torch.equal(tensor.grad, 2 * gradient)
    # A layout that was wanted, and was there, is taken to be kept.
    expected = returned if wanted == given else given
    assert memory_format_of(seen[0]) == expected


def test_leaves_alone_what_is_no_map_and_what_lies_well():
    vector = torch.ones(2, 3)
    assert lay_out(vector, LAST) is vector
    tensor = a_map(LAST)
    assert lay_out(tensor, LAST) is tensor


def test_second_derivative():
    tensor = torch.randn(SHAPE, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(
        lambda x: lay_out(x, LAST).square(), tensor
    )
