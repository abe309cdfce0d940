import pytest
import torch
from waves import wave

from mmdiffkd.models.losses import GramLoss

STUDENT = wave(torch.sin, 0.37, 0.2, 2, 3, 2, 3)
TEACHER = wave(torch.cos, 0.23, 0.5, 2, 5, 2, 3)


def test_value():
    # By NumPy in float64; DINOv3's released code gives it in float32.
    loss = GramLoss(loss_weight=2.0)(STUDENT, TEACHER)
    assert loss.item() == pytest.approx(2 * 0.10412944561691119, rel=1e-12)


def test_value_by_hand():
    # Two positions at a right angle, and two in one direction.
    student = torch.tensor([[[[2.0, 0.0]], [[0.0, 3.0]]]])
    teacher = torch.tensor([[[[1.0, 5.0]]]])
    # Of the four cosines, the two off the diagonal differ by 1.
    loss = GramLoss()(student, teacher).item()
    assert loss == pytest.approx(0.5, rel=1e-5)


def test_an_image_is_compared_with_itself_alone():
    swapped = GramLoss()(STUDENT.flip(0), TEACHER.flip(0))
    torch.testing.assert_close(swapped, GramLoss()(STUDENT, TEACHER))
    one, two = (
        GramLoss()(STUDENT[i : i + 1], TEACHER[i : i + 1]) for i in (0, 1)
    )
    torch.testing.assert_close((one + two) / 2, GramLoss()(STUDENT, TEACHER))


def test_rotations_and_lengths_do_not_count():
    turned = torch.linalg.qr(wave(torch.sin, 1.1, 0.3, 5, 5))[0]
    lengths = 2 + wave(torch.cos, 0.7, 0.1, 2, 1, 2, 3)
    other = torch.einsum('dc,bchw->bdhw', turned, TEACHER) * lengths
    assert GramLoss()(other, TEACHER).item() < 1e-24


def test_one_position():
    with pytest.raises(ValueError, match=r'\(2, 3, 1, 1\).*one position'):
        GramLoss().check_shapes((2, 3, 1, 1), (2, 5, 1, 1))
