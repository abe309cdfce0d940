import pytest
import torch

from mmdiffkd.models.losses import SPLoss


def test_value_by_hand():
    student = torch.eye(2)
    teacher = torch.tensor([[1.0], [1.0]])
    # Rows (1, 0) and (1, 1) / sqrt(2).
    off, on = 0.5**0.5, 1 - 0.5**0.5
    loss = SPLoss()(student, teacher).item()
    assert loss == pytest.approx((off**2 + on**2) / 2)


def test_lengths_of_all_features_do_not_count():
    student, teacher = torch.randn(2, 4, 3, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(
        SPLoss()(5 * student, teacher / 3), SPLoss()(student, teacher)
    )
