import pytest
import torch

from mmdiffkd.models.losses import AngleWiseRKD, DistanceWiseRKD

BOTH = pytest.mark.parametrize('loss', [DistanceWiseRKD, AngleWiseRKD])


def test_distances_by_hand():
    student = torch.tensor([[0.0], [1.0], [3.0]])
    # Distances 1, 3, 2, divided by 2; the teacher's are all equal.
    teacher = torch.eye(3)
    loss = DistanceWiseRKD(loss_weight=9.0, with_l2_norm=False)
    expected = 2 * (0.5 * 0.5**2 + 0.5 * 0.5**2 + 0)
    assert loss(student, teacher).item() == pytest.approx(expected)


def test_angles_by_hand():
    student = torch.tensor([[0.0], [1.0], [3.0]])
    # A line's angles have cosines 1, -1, 1; an equilateral triangle's 0.5.
    teacher = torch.eye(3)
    loss = AngleWiseRKD(loss_weight=27.0, with_l2_norm=False)
    expected = 2 * (0.5 * 0.5**2 + (1.5 - 0.5) + 0.5 * 0.5**2)
    assert loss(student, teacher).item() == pytest.approx(expected)


@BOTH
def test_size_and_place_do_not_count(loss):
    loss = loss(with_l2_norm=False)
    student, teacher = torch.randn(2, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(
        loss(3 * student + 7, teacher / 2 - 1), loss(student, teacher)
    )


@BOTH
def test_defaults_are_those_of_features_of_length_1(loss):
    student, teacher = torch.randn(2, 5, 4, dtype=torch.float64)
    factor = torch.rand(5, 1, dtype=torch.float64) + 0.5
    torch.testing.assert_close(
        loss()(factor * student, teacher), loss()(student, teacher)
    )


@BOTH
@pytest.mark.parametrize('with_l2_norm', [True, False])
def test_samples_in_one_place(loss, with_l2_norm):
    student = torch.ones(4, 3)
    student[3] = torch.tensor([1.0, 2.0, -1.0])
    student.requires_grad_()
    value = loss(loss_weight=1.0, with_l2_norm=with_l2_norm)(
        student, torch.randn(4, 3)
    )
    value.backward()
    assert value.isfinite()
    # Bounded, rather than of the order of 1e12.
    assert student.grad.abs().max() < 10
