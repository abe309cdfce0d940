import math

import pytest
import torch

from mmdiffkd.models.losses import PKTLoss


def test_value_by_hand():
    # Similarities 1 and 0.5 for the student, 1 and 1 for the teacher.
    loss = PKTLoss()(torch.eye(2), torch.ones(2, 1)).item()
    expected = (math.log(0.5 / (2 / 3)) + math.log(0.5 / (1 / 3))) / 2 / 2
    assert loss == pytest.approx(expected, rel=1e-5)


def test_lengths_do_not_count():
    student, teacher = torch.randn(2, 4, 6, dtype=torch.float64)
    factor = torch.tensor([[0.5], [1.0], [2.0], [4.0]])
    torch.testing.assert_close(
        PKTLoss()(factor * student, teacher),
        PKTLoss()(student, teacher),
        rtol=1e-5,
        atol=0,
    )
