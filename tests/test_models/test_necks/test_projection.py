import pytest
import torch
from torch import nn

from mmdiffkd.models.necks import Aligned, ProjectionNeck
from mmdiffkd.registry import MODELS

CASES = [('map', (5, 7)), ('map', (1, 1)), ('vector', ())]


@pytest.mark.parametrize('feature, size', CASES)
@pytest.mark.parametrize('batch_size', [1, 3])
def test_aligns(feature, size, batch_size):
    neck = MODELS.build(
        {
            'type': 'ProjectionNeck',
            'student_channels': 6,
            'teacher_channels': 9,
            'feature': feature,
        }
    )
    student = torch.randn(batch_size, 6, *size, requires_grad=True)
    teacher = torch.randn(batch_size, 9, *size, requires_grad=True)
    drawn = neck.draw(student, teacher, torch.Generator())
    aligned = neck(student, teacher, **drawn)

    assert isinstance(aligned, Aligned)
    assert aligned.student.shape == aligned.teacher.shape == teacher.shape
    assert aligned.losses == aligned.metrics == {}
    assert torch.equal(aligned.teacher, teacher)
    (aligned.student - aligned.teacher).square().sum().backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_layers():
    layer = {'map': nn.Conv2d, 'vector': nn.Linear}
    for feature, expected in layer.items():
        neck = ProjectionNeck(6, 9, feature)
        assert type(neck.student_projection) is expected
        assert sum(p.numel() for p in neck.parameters()) == 6 * 9 + 9


@pytest.mark.parametrize(
    'arguments, message',
    [
        ({}, 'student_channels=None'),
        ({'student_channels': 6}, 'teacher_channels=None'),
        ({'student_channels': 6, 'teacher_channels': 0}, 'teacher_channels=0'),
        (
            {
                'student_channels': 6,
                'teacher_channels': 9,
                'feature': 'token',
            },
            "feature='token'",
        ),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        ProjectionNeck(**arguments)


def test_maps_and_vectors_mixed_up():
    with pytest.raises(ValueError, match="student.*set feature='vector'"):
        ProjectionNeck(6, 9)(torch.ones(2, 6), torch.ones(2, 9))
    with pytest.raises(ValueError, match='teacher.*set teacher_channels=8'):
        ProjectionNeck(6, 9, 'vector')(torch.ones(2, 6), torch.ones(2, 8))
