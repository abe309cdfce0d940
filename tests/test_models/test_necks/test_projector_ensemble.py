from math import sqrt

import pytest
import torch
from torch.nn import functional as F

from mmdiffkd.models.necks import ProjectorEnsembleNeck


def wave(function, frequency, phase, *shape):
    index = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return function(frequency * index + phase).reshape(shape)


def test_value_of_the_released_code():
    neck = ProjectorEnsembleNeck(8, 12).double()
    parameters = ((0.9, 0.1, 0.3), (1.1, 0.2, 0.5), (1.7, 0.3, 0.7))
    with torch.no_grad():
        for k, (frequency, phase, bias) in enumerate(parameters):
            rows = slice(12 * k, 12 * (k + 1))
            neck.projectors.weight[rows] = wave(
                torch.sin, frequency, phase, 12, 8
            )
            neck.projectors.bias[rows] = wave(torch.cos, bias, 0, 12)
    aligned = neck(
        wave(torch.sin, 0.51, 0.4, 4, 8), wave(torch.cos, 0.29, 0.6, 4, 12)
    )
    cosine = F.cosine_similarity(aligned.student, aligned.teacher)
    assert (1 - cosine).mean().item() == pytest.approx(
        0.807812690557, abs=1e-9
    )


def test_projectors_are_drawn_apart():
    neck = ProjectorEnsembleNeck(64, 32, num_projectors=4)
    weights = neck.projectors.weight.unflatten(0, (4, 32))
    bound = 1 / sqrt(64)  # nn.Linear's own, for weights and biases
    for k, weight in enumerate(weights):
        assert 0.98 * bound < weight.abs().max() <= bound
        assert all(not torch.equal(weight, w) for w in weights[:k])
    assert neck.projectors.bias.abs().max() <= bound


def test_maps_are_projected_position_by_position():
    on_maps = ProjectorEnsembleNeck(6, 9, feature='map')
    on_vectors = ProjectorEnsembleNeck(6, 9)
    on_vectors.projectors.weight.data = on_maps.projectors.weight[..., 0, 0]
    on_vectors.projectors.bias = on_maps.projectors.bias
    student, teacher = torch.randn(2, 6, 5, 7), torch.randn(2, 9, 5, 7)
    maps = on_maps(student, teacher).student
    vectors = on_vectors(student[..., 4, 2], teacher[..., 4, 2]).student
    torch.testing.assert_close(maps[..., 4, 2], vectors)


@pytest.mark.parametrize(
    'arguments, message',
    [
        ({'teacher_channels': 9}, 'student_channels=None'),
        ({'student_channels': 6, 'teacher_channels': 0}, 'teacher_channels=0'),
        (
            dict.fromkeys(('student_channels', 'teacher_channels'), 6)
            | {'num_projectors': 0},
            'num_projectors=0 must be at least 1',
        ),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        ProjectorEnsembleNeck(**arguments)


def test_maps_and_vectors_mixed_up():
    neck = ProjectorEnsembleNeck(6, 9)
    with pytest.raises(ValueError, match="student.*set feature='map'"):
        neck(torch.ones(2, 6, 3, 3), torch.ones(2, 9, 3, 3))
    with pytest.raises(ValueError, match='set teacher_channels=8'):
        neck(torch.ones(2, 6), torch.ones(2, 8))
