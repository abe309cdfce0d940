import pytest
import torch

from mmdiffkd.models.losses import MSELoss
from mmdiffkd.registry import MODELS


def test_loss_weight():
    loss = MODELS.build({'type': 'MSELoss', 'loss_weight': 5.0})
    student = torch.tensor([1.0, 2.0])
    assert loss(student, torch.tensor([0.0, 4.0])).item() == 12.5


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_compared_in_float32(dtype):
    student = torch.full((2, 3), 300.0, dtype=dtype, requires_grad=True)
    loss = MSELoss()(student, torch.zeros_like(student))
    assert loss.dtype == torch.float32
    # Infinite in float16.
    assert loss.item() == 90_000
    loss.backward()
    assert student.grad.dtype == dtype


def test_shapes_must_be_equal():
    with pytest.raises(ValueError, match=r'\(2, 3\).*\(2, 1\).*neck'):
        MSELoss()(torch.ones(2, 3), torch.ones(2, 1))


def test_is_not_over_classes():
    assert not getattr(MSELoss, 'over_classes', False)
