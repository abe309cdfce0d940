import pytest
import torch
from torch.nn import functional as F

from mmdiffkd.models.losses import HCLLoss, MSELoss


def test_value_by_hand():
    student = torch.tensor([[1.0, 3.0], [5.0, 7.0]]).reshape(1, 1, 2, 2)
    loss = HCLLoss()(student, torch.zeros(1, 1, 2, 2)).item()
    # 21 as it is; 16 of its mean, by half.
    assert loss == pytest.approx((21 + 16 / 2) / 1.5)


@pytest.mark.parametrize(
    'height, width, sizes',
    [
        (8, 8, (4, 2, 1)),
        (5, 9, (4, 2, 1)),
        (4, 4, (2, 1)),
        (9, 3, (2, 1)),
        (2, 2, (1,)),
        (1, 7, ()),
    ],
)
def test_sizes_below_the_smaller_side(height, width, sizes):
    student, teacher = torch.randn(2, 2, 3, height, width, dtype=torch.float64)
    errors = [(student - teacher).square().mean()]
    for size in sizes:
        pooled = F.adaptive_avg_pool2d(student - teacher, size)
        errors.append(pooled.square().mean())
    weights = [0.5**k for k in range(len(errors))]
    expected = sum(w * e for w, e in zip(weights, errors)) / sum(weights)
    torch.testing.assert_close(HCLLoss()(student, teacher), expected)


def test_vectors_are_maps_of_one_pixel():
    student, teacher = torch.randn(2, 3, 5)
    assert HCLLoss()(student, teacher) == MSELoss()(student, teacher)
