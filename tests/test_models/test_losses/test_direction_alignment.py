import pytest
import torch

from mmdiffkd.models.losses import DirectionAlignmentLoss


def test_value_by_hand():
    student = torch.tensor([[3.0, 4.0], [0.0, 2.0], [0.0, -1.0]])
    teacher = torch.tensor([[5.0, 0.0], [0.0, 7.0], [0.0, 2.0]])
    loss = DirectionAlignmentLoss(loss_weight=3.0)(student, teacher)
    assert loss.item() == pytest.approx(0.4 + 0 + 2)


def test_a_vector_without_length():
    student = torch.zeros(1, 2, requires_grad=True)
    loss = DirectionAlignmentLoss()(student, torch.tensor([[3.0, 4.0]]))
    assert loss == 1
    loss.backward()
    # Towards the teacher, with a gradient of length 1.
    torch.testing.assert_close(student.grad, torch.tensor([[-0.6, -0.8]]))
