import pytest
import torch

from mmdiffkd.models.losses.operands import (
    check_groups,
    check_tensor_channels,
    comparable,
    divided,
    inner_products,
    unit,
)


@pytest.mark.parametrize(
    'student, teacher, common',
    [
        (torch.float16, torch.bfloat16, torch.float32),
        (torch.float16, torch.float32, torch.float32),
        (torch.float32, torch.float64, torch.float64),
    ],
)
def test_precision(student, teacher, common):
    preds = comparable(
        torch.ones(2, dtype=student), torch.ones(2, dtype=teacher)
    )
    assert [x.dtype for x in preds] == [common, common]


def test_channels_alone_may_differ():
    maps = torch.ones(2, 3, 4, 5), torch.ones(2, 7, 4, 5)
    with pytest.raises(ValueError, match=r'\(2, 3, 4, 5\).*\(2, 7, 4, 5\).*n'):
        comparable(*maps)
    comparable(*maps, any_channels=True)
    with pytest.raises(ValueError, match='channels, axis 1, alone'):
        comparable(maps[0], torch.ones(2, 7, 4, 4), any_channels=True)


def test_check_channels():
    check_tensor_channels(torch.ones(1, 2, 3, 3), teacher_channels=2)
    with pytest.raises(ValueError, match='teacher_channels=4.*set.*=2'):
        check_tensor_channels(torch.ones(1, 2, 3, 3), teacher_channels=4)


@pytest.mark.parametrize('groups', [0, -1, 2.0, '4', None])
def test_check_groups(groups):
    check_groups(4)
    with pytest.raises(ValueError, match=f'groups={groups!r} must be an int'):
        check_groups(groups)


def test_unit():
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    scaled = unit(vectors)
    assert torch.equal(scaled, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    scaled.sum().backward()
    # At 0 as if it had been left alone, rather than of the order of 1e12.
    assert torch.equal(vectors.grad[1], torch.ones(2))
    assert torch.equal(unit(vectors.T, dim=0), scaled.T)


def test_eps_is_added_and_is_no_size():
    sizes = torch.tensor([4.0, 1.0, 0.0])
    quotient = divided(torch.full((3,), 10.0), sizes, eps=1.0)
    assert torch.equal(quotient, torch.tensor([2.0, 10.0, 10.0]))


@pytest.mark.exact
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_inner_products_keep_their_precision(dtype):
    rows = torch.full((2, 3), 300.0)
    with torch.autocast('cpu', dtype):
        products = inner_products(rows)
    # Infinite in float16, 270,336 in bfloat16.
    assert torch.equal(products, torch.full((2, 2), 270_000.0))
