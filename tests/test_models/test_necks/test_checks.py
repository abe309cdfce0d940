import pytest
import torch

from mmdiffkd.models.necks.checks import (
    check_batch_statistics,
    check_channels,
    check_feature,
    check_map,
)


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
        check_channels(teacher_channels=4, student_channels=value)
    check_channels(teacher_channels=4, student_channels=1)


@pytest.mark.parametrize(
    'shape, feature, message',
    [
        ((2, 4), 'map', r"student.*\(2, 4\).*set feature='vector'"),
        ((2, 4, 3, 3), 'vector', r"\(2, 4, 3, 3\).*set feature='map'"),
        ((2, 9, 4), 'map', r'\(2, 9, 4\).*\(B, C, H, W\).*tokens'),
        ((2, 9, 4), 'vector', r'\(2, 9, 4\).*\(B, C\): reshape'),
        ((2, 5), 'vector', r'\(2, 5\).*set student_channels=5'),
    ],
)
def test_feature(shape, feature, message):
    with pytest.raises(ValueError, match=message):
        check_feature('student', torch.ones(shape), 4, feature)


def test_feature_as_announced():
    check_feature('student', torch.ones(2, 4), 4, 'vector')
    check_feature('teacher', torch.ones(2, 4, 1, 9), 4, 'map')


def test_map():
    check_map('student', torch.ones(2, 4, 1, 9), 4)
    with pytest.raises(ValueError, match=r'teacher.*\(2, 4\).*maps'):
        check_map('teacher', torch.ones(2, 4), 4)
    with pytest.raises(ValueError, match='set student_channels=5'):
        check_map('student', torch.ones(2, 5, 3, 3), 4)


@pytest.mark.parametrize('shape', [(1, 4), (1, 4, 1, 1)])
def test_batch_statistics(shape):
    with pytest.raises(ValueError, match=r'teacher.*\(1, 4.*drop_last=True'):
        check_batch_statistics('teacher', torch.ones(shape))


@pytest.mark.parametrize('shape', [(2, 4), (1, 4, 1, 2), (2, 4, 1, 1)])
def test_enough_batch_statistics(shape):
    check_batch_statistics('teacher', torch.ones(shape))
