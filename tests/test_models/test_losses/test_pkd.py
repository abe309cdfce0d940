import pytest
import torch

from mmdiffkd.models.losses import PKDLoss


def test_is_one_minus_the_correlation_of_channels():
    student, teacher = torch.randn(2, 4, 3, 5, 5, dtype=torch.float64)
    correlations = [
        torch.corrcoef(torch.stack([s.flatten(), t.flatten()]))[0, 1]
        for s, t in zip(student.unbind(1), teacher.unbind(1))
    ]
    # Unbiased variances: (n - 1) / n of it.
    expected = (1 - sum(correlations) / 3) * 99 / 100
    torch.testing.assert_close(
        PKDLoss()(student, teacher), expected, rtol=1e-5, atol=0
    )


def test_a_constant_channel_keeps_gradients_small():
    student = torch.zeros(1, 2, 3, 3)
    student[:, 1] = torch.randn(3, 3)
    student.requires_grad_()
    PKDLoss()(student, torch.randn(1, 2, 3, 3)).backward()
    # Rather than of the order of 1e6.
    assert 0 < student.grad[:, 0].abs().max() < 1


def test_the_teacher_is_not_resized():
    PKDLoss(resize_stu=True)
    with pytest.raises(ValueError, match='resize_stu=False'):
        PKDLoss(resize_stu=False)
