import pytest
import torch
from torch.nn import functional as F

from mmdiffkd.models import losses
from mmdiffkd.models.losses import DistillLoss


class AbsoluteLoss(DistillLoss):
    def distance(self, preds_S, preds_T, offset=0):
        self.dtypes = preds_S.dtype, preds_T.dtype
        return F.l1_loss(preds_S, preds_T) + offset


class MapLoss(AbsoluteLoss):
    feature = 'map'


class GramLoss(AbsoluteLoss):
    any_channels = True
    feature = 'vector'

    def distance(self, preds_S, preds_T):
        return super().distance(preds_S @ preds_S.T, preds_T @ preds_T.T)


def test_weight_precision_and_further_arguments():
    loss = AbsoluteLoss(loss_weight=3.0)
    ones = torch.ones(2, 3)
    assert loss(ones, 2 * ones) == 3
    assert loss(ones.half(), 2 * ones.half(), offset=1) == 6
    assert loss.dtypes == (torch.float32, torch.float32)
    loss(ones.double(), ones)
    assert loss.dtypes == (torch.float64, torch.float64)


@pytest.mark.parametrize(
    'loss, student, teacher, message',
    [
        (AbsoluteLoss, (2, 3), (2, 4), r'\(2, 3\).*\(2, 4\).*put a neck'),
        (MapLoss, (2, 3), (2, 3), r'MapLoss.*maps.*\(2, 3\).*pooled'),
        (GramLoss, (2, 3, 1, 1), (2, 4, 1, 1), 'GramLoss compares vectors'),
        (GramLoss, (2, 3), (3, 3), 'channels, axis 1, alone'),
    ],
)
def test_shapes_are_checked_in_a_call_and_without_one(
    loss, student, teacher, message
):
    with pytest.raises(ValueError, match=message):
        loss()(torch.ones(student), torch.ones(teacher))
    with pytest.raises(ValueError, match=message):
        loss().check_shapes(student, teacher)


def test_any_channels():
    loss = GramLoss()(torch.ones(2, 3), torch.ones(2, 4))
    assert loss.item() == pytest.approx(1)


def test_every_loss_is_exported():
    assert {'MSELoss', 'AngleWiseRKD', 'DistillLoss'} <= set(losses.__all__)
    for name in losses.__all__:
        assert issubclass(getattr(losses, name), DistillLoss)
