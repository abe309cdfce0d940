import pytest
import torch

from mmdiffkd.models.losses import ATLoss


def test_value_by_hand():
    # Squares averaged over channels: (9, 16) and (1, 0).
    student = torch.tensor([[3.0, 4.0], [-3.0, 4.0]]).reshape(1, 2, 1, 2)
    teacher = torch.tensor([[-1.0, 0.0]]).reshape(1, 1, 1, 2)
    length = (9**2 + 16**2) ** 0.5
    expected = ((9 / length - 1) ** 2 + (16 / length) ** 2) / 2
    assert ATLoss()(student, teacher).item() == pytest.approx(expected)
