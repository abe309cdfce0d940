import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmdiffkd.models.necks import VIDNeck


def test_layers():
    neck = VIDNeck(6, 9)
    kinds = [nn.Conv2d, nn.ReLU, nn.Conv2d, nn.ReLU, nn.Conv2d]
    assert [type(layer) for layer in neck.mean] == kinds
    widths = [layer.weight.shape for layer in neck.mean[::2]]
    assert widths == [(9, 6, 1, 1), (9, 9, 1, 1), (9, 9, 1, 1)]
    assert all(layer.bias is None for layer in neck.mean[::2])
    assert neck.resizes


@pytest.mark.parametrize(
    'student, teacher, size',
    [
        ((8, 6), (8, 6), (8, 6)),
        ((8, 6), (4, 3), (4, 3)),
        ((4, 3), (8, 7), (4, 3)),
        ((7, 3), (5, 9), (5, 3)),
    ],
)
def test_larger_map_is_averaged(student, teacher, size):
    neck = VIDNeck(6, 9)
    student, teacher = torch.randn(2, 6, *student), torch.randn(2, 9, *teacher)
    aligned = neck(student, teacher)
    assert aligned.student.shape == aligned.teacher.shape == (2, 9, *size)
    pooled = F.adaptive_avg_pool2d(student, size)
    torch.testing.assert_close(aligned.student, neck.mean(pooled))
    torch.testing.assert_close(
        aligned.teacher, F.adaptive_avg_pool2d(teacher, size)
    )


def test_errors():
    with pytest.raises(ValueError, match='teacher_channels=None'):
        VIDNeck(6)
    with pytest.raises(ValueError, match='takes maps'):
        VIDNeck(6, 9)(torch.ones(2, 6), torch.ones(2, 9))
