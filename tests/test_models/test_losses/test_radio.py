import pytest
import torch
from waves import wave

from mmdiffkd.models.losses import DirectionAlignmentLoss, RADIOLoss

STUDENT = wave(torch.sin, 0.37, 0.2, 2, 3, 2, 3)
TEACHER = 4 * wave(torch.cos, 0.23, 0.5, 2, 3, 2, 3) + 3


# By NumPy in float64. Of the map's differences 31 % are below 1.
@pytest.mark.parametrize(
    'student, teacher, value',
    [
        (STUDENT, TEACHER, 0.860261386902291),
        (
            3 * STUDENT[:, :, 0, 0],
            TEACHER[:, :, 0, 0],
            1.0789209024644149,
        ),
    ],
    ids=['map', 'vector'],
)
def test_value(student, teacher, value):
    loss = RADIOLoss(loss_weight=2.0)(student, teacher)
    assert loss.item() == pytest.approx(2 * value, rel=1e-12)


def test_weights():
    cosine = RADIOLoss(cosine_weight=1.0, smooth_l1_weight=0.0)
    assert torch.equal(
        cosine(STUDENT, TEACHER), DirectionAlignmentLoss()(STUDENT, TEACHER)
    )
    length = RADIOLoss(cosine_weight=0.0, smooth_l1_weight=1.0)
    loss = length(STUDENT, TEACHER).item()
    assert loss == pytest.approx(2.731160216895628, rel=1e-12)
