import pytest
import torch

from mmdiffkd.models.losses import DISTLoss


def test_terms_add_up():
    student, teacher = torch.randn(2, 4, 5, dtype=torch.float64)
    inter, intra, both = (
        DISTLoss(inter_loss_weight=a, intra_loss_weight=b, tau=2.0)(
            student, teacher
        )
        for a, b in ((1, 0), (0, 1), (3, 2))
    )
    torch.testing.assert_close(both, 3 * inter + 2 * intra)


@pytest.mark.parametrize('classes', [7, 1000])
def test_equal_logits_correlate_with_nothing(classes):
    student = torch.full((1, classes), 0.3, requires_grad=True)
    teacher = torch.randn(1, classes)
    loss = DISTLoss(intra_loss_weight=0.0, tau=2.0)(student, teacher)
    assert loss == 4
    loss.backward()
    assert torch.equal(student.grad, torch.zeros_like(student))


def test_intra_is_a_constant_for_one_sample():
    student, teacher = torch.randn(2, 1, 5)
    student.requires_grad_()
    loss = DISTLoss(inter_loss_weight=0.0)(student, teacher)
    assert loss == 1
    loss.backward()
    assert torch.equal(student.grad, torch.zeros_like(student))


def test_teacher_gets_gradients_only_when_asked():
    student, teacher = (x.requires_grad_() for x in torch.randn(2, 4, 5))
    DISTLoss()(student, teacher).backward()
    assert teacher.grad is None
    DISTLoss(teacher_detach=False)(student, teacher).backward()
    assert teacher.grad.abs().sum() > 0


def test_tau_out_of_range():
    with pytest.raises(ValueError, match='tau=-1'):
        DISTLoss(tau=-1)
