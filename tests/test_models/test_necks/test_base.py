import pytest
import torch

from mmdiffkd.models import necks
from mmdiffkd.models.necks import DistillNeck
from mmdiffkd.models.necks.base import (
    check_batch_statistics,
    check_channel_arguments,
)


class AnyNeck(DistillNeck):
    def __init__(self, feature=None):
        super().__init__()
        self.set_channels(4, 4)
        self.feature = feature


class MapNeck(DistillNeck):
    feature = 'map'

    def __init__(self):
        super().__init__()
        self.set_channels(4, 4)


@pytest.mark.parametrize(
    'value, message',
    [
        (None, 'student_channels=None.*give student_channels'),
        (0, 'student_channels=0 must be at least 1'),
        (-3, 'student_channels=-3'),
    ],
)
def test_channels(value, message):
    with pytest.raises(ValueError, match=message):
        check_channel_arguments(teacher_channels=4, student_channels=value)
    check_channel_arguments(teacher_channels=4, student_channels=1)


@pytest.mark.parametrize(
    'shape, feature, message',
    [
        ((2, 4), 'map', r"student.*\(2, 4\).*set feature='vector'"),
        ((2, 4, 3, 3), 'vector', r"\(2, 4, 3, 3\).*set feature='map'"),
        ((2, 9, 4), 'map', r'\(2, 9, 4\).*\(B, C, H, W\).*tokens'),
        ((2, 9, 4), 'vector', r'\(2, 9, 4\).*vectors \(B, C\): reshape'),
        ((2, 9, 4), None, r'maps .* or vectors \(B, C\): reshape'),
        ((2, 5), 'vector', r'\(2, 5\).*set student_channels=5'),
    ],
)
def test_feature(shape, feature, message):
    with pytest.raises(ValueError, match=message):
        AnyNeck(feature).check(torch.ones(shape), torch.ones(shape))


def test_feature_as_announced():
    for feature, shape in (
        ('vector', (2, 4)),
        ('map', (2, 4, 1, 9)),
        (None, (2, 4)),
    ):
        AnyNeck(feature).check(torch.ones(shape), torch.ones(shape))


def test_map():
    neck, good = MapNeck(), torch.ones(2, 4, 1, 9)
    neck.check(good, good)
    with pytest.raises(ValueError, match=r'teacher.*\(2, 4\).*takes maps'):
        neck.check(good, torch.ones(2, 4))
    with pytest.raises(ValueError, match='set student_channels=5'):
        neck.check(torch.ones(2, 5, 3, 3), good)


def test_every_neck_is_exported():
    assert {'Aligned', 'DiffKDNeck', 'DistillNeck'} <= set(necks.__all__)
    assert all(hasattr(necks, name) for name in necks.__all__)


@pytest.mark.parametrize('shape', [(1, 4), (1, 4, 1, 1)])
def test_batch_statistics(shape):
    with pytest.raises(ValueError, match=r'teacher.*\(1, 4.*drop_last=True'):
        check_batch_statistics('teacher', torch.ones(shape))


@pytest.mark.parametrize('shape', [(2, 4), (1, 4, 1, 2), (2, 4, 1, 1)])
def test_enough_batch_statistics(shape):
    check_batch_statistics('teacher', torch.ones(shape))
