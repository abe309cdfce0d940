import pytest
import torch
from torch import nn

from mmdiffkd.models.necks import FitNetNeck

SIZES = [
    # Student's, teacher's, the layer's class, kernel and stride.
    ((10, 14), (5, 7), nn.Conv2d, (3, 3), (2, 2)),
    ((2, 2), (1, 1), nn.Conv2d, (3, 3), (2, 2)),
    ((5, 7), (10, 14), nn.ConvTranspose2d, (4, 4), (2, 2)),
    ((5, 7), (5, 7), nn.Conv2d, (1, 1), (1, 1)),
    ((8, 8), (5, 6), nn.Conv2d, (4, 3), (1, 1)),
    ((13, 13), (7, 7), nn.Conv2d, (7, 7), (1, 1)),
]


@pytest.mark.parametrize('size, target, layer, kernel, stride', SIZES)
def test_layer_by_size(size, target, layer, kernel, stride):
    neck = FitNetNeck(6, 9, size, target)
    convolution, norm, activation = neck.regressor
    assert type(convolution) is layer
    assert convolution.kernel_size == kernel
    assert convolution.stride == stride
    assert convolution.bias is not None
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(activation, nn.ReLU)
    assert neck.resizes

    aligned = neck(torch.randn(2, 6, *size), torch.randn(2, 9, *target))
    # Without any resizing.
    assert convolution(torch.randn(2, 6, *size)).shape == (2, 9, *target)
    assert aligned.student.shape == aligned.teacher.shape == (2, 9, *target)
    assert aligned.student.min() >= 0


def test_without_sizes_they_are_equal():
    assert FitNetNeck(6, 9).regressor[0].kernel_size == (1, 1)
    assert FitNetNeck(6, 9, (8, 8)).regressor[0].kernel_size == (1, 1)


@pytest.mark.parametrize(
    'built, given',
    [
        (((8, 8), (4, 4)), ((11, 13), (5, 7))),
        (((4, 4), (8, 8)), ((6, 7), (11, 13))),
        (((8, 8), (8, 8)), ((8, 8), (5, 3))),
    ],
)
def test_images_of_another_size(built, given):
    neck = FitNetNeck(6, 9, *built)
    student, teacher = given
    aligned = neck(torch.randn(2, 6, *student), torch.randn(2, 9, *teacher))
    assert aligned.student.shape == aligned.teacher.shape == (2, 9, *teacher)


def test_map_smaller_than_the_kernel():
    neck = FitNetNeck(6, 9, (28, 28), (7, 7))
    with pytest.raises(ValueError, match=r'\(4, 4\).*\(22, 22\).*input_size'):
        neck(torch.randn(2, 6, 4, 4), torch.randn(2, 9, 1, 1))


@pytest.mark.parametrize(
    'size, target', [((4, 4), (14, 14)), ((7, 7), (8, 8)), ((4, 8), (8, 8))]
)
def test_teacher_too_large(size, target):
    with pytest.raises(ValueError, match='factor of 2.*ProjectionNeck'):
        FitNetNeck(6, 9, size, target)


def test_errors():
    with pytest.raises(ValueError, match='student_channels=None'):
        FitNetNeck(teacher_channels=9)
    neck = FitNetNeck(6, 9)
    with pytest.raises(ValueError, match='takes maps'):
        neck(torch.ones(2, 6), torch.ones(2, 9))
    single = torch.ones(1, 6, 1, 1), torch.ones(1, 9, 1, 1)
    with pytest.raises(ValueError, match=r'\(1, 9, 1, 1\).*drop_last=True'):
        neck(*single)
    neck.eval()(*single)
