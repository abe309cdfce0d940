import pytest
import torch
from torch import nn
from waves import wave

from mmdiffkd.models.losses import SmoothL1Loss


@pytest.mark.parametrize(
    'beta, terms',
    [
        (0.0, (0.5, 3.5)),
        (1.0, (0.125, 3.0)),
        (2.0, (0.0625, 2.5)),
        (4.0, (0.03125, 1.53125)),
    ],
)
def test_value(beta, terms):
    # Differences of 0.5 and 3.5.
    student, teacher = torch.tensor([1.0, 4.0]), torch.tensor([1.5, 0.5])
    loss = SmoothL1Loss(beta=beta, loss_weight=2.0)(student, teacher)
    assert loss.item() == sum(terms)


def test_negative_beta():
    with pytest.raises(ValueError, match='beta=-1.0'):
        SmoothL1Loss(beta=-1.0)


MAPS = (
    3 * wave(torch.sin, 0.37, 0.2, 2, 3, 2, 3),
    4 * wave(torch.cos, 0.23, 0.5, 2, 3, 2, 3) + 3,
)


# By NumPy in float64. Of the map's differences 67 % are below 2.
@pytest.mark.parametrize(
    'student, teacher, value',
    [
        (*MAPS, 0.8772954814850001),
        (*(x[:, :, 0, 0] for x in MAPS), 0.988508832047586),
    ],
    ids=['map', 'vector'],
)
def test_normalized_teacher(student, teacher, value):
    loss = SmoothL1Loss(beta=2.0, normalize_teacher=True)(student, teacher)
    assert loss.item() == pytest.approx(value, rel=1e-12)


def test_normalized_teacher_is_that_of_feature_distillation():
    """Whose code compares tokens (B, N, C), by layers of PyTorch."""
    student, teacher = (x.flatten(2).mT for x in MAPS)
    norm = nn.LayerNorm(3, elementwise_affine=False)
    expected = nn.SmoothL1Loss(beta=2.0)(student, norm(teacher))
    loss = SmoothL1Loss(beta=2.0, normalize_teacher=True)(*MAPS)
    torch.testing.assert_close(loss, expected)


def test_one_channel_has_nothing_to_normalize():
    with pytest.raises(ValueError, match=r'\(2, 1, 4, 4\) has one'):
        SmoothL1Loss(normalize_teacher=True).check_shapes(
            (2, 1, 4, 4), (2, 1, 4, 4)
        )
    SmoothL1Loss().check_shapes((2, 1, 4, 4), (2, 1, 4, 4))
