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


@pytest.mark.parametrize(
    'loss, shape, message',
    [
        (losses.KLDivergence(), (2, 1), r'\(2, 1\).*BinaryKLDivergence'),
        (losses.KLDivergence(), (2, 1, 8, 8), r'one class\. A softmax'),
        (losses.DISTLoss(), (2, 1, 8, 8), r'DISTLoss.*\(2, 1, 8, 8\)'),
        (losses.DKDLoss(), (2, 1), 'constant and without gradient'),
        (losses.KLDivergence(groups=3), (2, 3), 'in each of groups=3.*Binary'),
        (losses.KLDivergence(groups=3), (2, 8), r'groups=3.*8 channels'),
        (losses.LDLoss(), (2, 4, 8, 8), r'one bin.*groups=4.*SmoothL1Loss'),
        (losses.LDLoss(), (2, 17, 8, 8), r'groups=4.*17.*set `groups`'),
    ],
)
def test_a_softmax_needs_two_channels_a_distribution(loss, shape, message):
    with pytest.raises(ValueError, match=message):
        loss.check_shapes(shape, shape)
    with pytest.raises(ValueError, match=message):
        loss(torch.ones(shape), torch.ones(shape))


def test_sigmoids_and_values_may_have_one_channel():
    for loss in (losses.BinaryKLDivergence(), losses.MSELoss()):
        loss.check_shapes((2, 1), (2, 1))
        assert loss(torch.zeros(2, 1), torch.ones(2, 1)) > 0


def test_any_channels():
    loss = GramLoss()(torch.ones(2, 3), torch.ones(2, 4))
    assert loss.item() == pytest.approx(1)


def test_every_loss_is_exported():
    assert {'MSELoss', 'AngleWiseRKD', 'DistillLoss'} <= set(losses.__all__)
    for name in losses.__all__:
        assert issubclass(getattr(losses, name), DistillLoss)
