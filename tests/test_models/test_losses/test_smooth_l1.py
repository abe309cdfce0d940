import pytest
import torch

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
