"""Each candidate is its formula, trains all that it has, and draws once."""

import inspect

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmdiffkd.analysis.candidates import (
    AnchoredNeck,
    CleanDiffusionNeck,
    FlowNeck,
    LensNeck,
    RefinedTargetNeck,
    StandardizedLogitsNeck,
    TimedNetwork,
    standardized,
)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def map_pair(channels=6, teacher_channels=8):
    student = torch.randn(4, channels, 3, 3, requires_grad=True)
    return student, torch.randn(4, teacher_channels, 3, 3)


def vector_pair():
    return torch.randn(4, 5, requires_grad=True), torch.randn(4, 5)


@pytest.mark.parametrize(
    'neck, pair',
    [
        (CleanDiffusionNeck(6, 8), map_pair),
        (FlowNeck(6, 8), map_pair),
        (LensNeck(6, 8), map_pair),
        (AnchoredNeck(5, 5, feature='vector'), vector_pair),
        (RefinedTargetNeck(5, 5, feature='vector'), vector_pair),
        (RefinedTargetNeck(6, 6), lambda: map_pair(6, 6)),
    ],
    ids=lambda each: type(each).__name__,
)
def test_everything_is_trained(neck, pair):
    student, teacher = pair()
    given = neck.draw(student, teacher)
    if 'teacher_head' in inspect.signature(neck.forward).parameters:
        given['teacher_head'] = nn.Linear(8, 3).requires_grad_(False)
    aligned = neck(student, teacher, **given)
    assert aligned.student.shape == aligned.teacher.shape
    assert not aligned.teacher.requires_grad
    distance = F.mse_loss(aligned.student, aligned.teacher)
    (distance + sum(aligned.losses.values())).backward()
    assert student.grad.abs().sum() > 0
    assert all(p.grad is not None for p in neck.parameters())


def test_the_network_hears_the_time():
    """In train mode, too, where the whole batch has one time."""
    network = TimedNetwork(8)
    for block in network.blocks:
        nn.init.normal_(block.modulation.weight)
    feature = torch.randn(2, 8, 3, 3)
    early, late = (network(feature, torch.full((2,), t)) for t in (10, 400))
    assert not torch.allclose(early, late)


def test_a_flow_that_stands_still():
    neck = FlowNeck(6, 8)
    nn.init.zeros_(neck.network.output.weight)
    nn.init.zeros_(neck.network.output.bias)
    student, teacher = map_pair()
    aligned = neck(student, teacher)
    projected = neck.student_projection(student)
    assert torch.equal(aligned.student, projected.repeat(3, 1, 1, 1))


def test_a_walk_of_a_perfect_network():
    """What predicts the target ends there, whatever the start."""
    neck = CleanDiffusionNeck(6, 8)
    student, teacher = map_pair()
    target = neck.standardization(teacher)
    neck.network.forward = lambda feature, timesteps: target
    aligned = neck(student, teacher, **neck.draw(student, teacher))
    torch.testing.assert_close(aligned.student, target)
    assert aligned.losses['loss_diffusion'] == 0


def test_the_anchor_begins_with_the_student():
    neck = AnchoredNeck(5, 5, feature='vector')
    student, teacher = vector_pair()
    aligned = neck(student, teacher, **neck.draw(student, teacher))
    torch.testing.assert_close(aligned.student, standardized(student))
    torch.testing.assert_close(aligned.teacher, standardized(teacher))


def test_the_students_gradient_passes_through_no_refinement():
    neck = RefinedTargetNeck(5, 5, feature='vector')
    plain = StandardizedLogitsNeck(5, 5, feature='vector')
    student, teacher = vector_pair()
    aligned = neck(student, teacher)
    assert torch.equal(aligned.student, plain(student, teacher).student)
    guess = neck.network(standardized(student))
    mixed = (standardized(teacher) + guess) / 2
    torch.testing.assert_close(aligned.teacher, mixed)
    (gradient,) = torch.autograd.grad(
        aligned.losses['loss_refinement'], student, allow_unused=True
    )
    assert gradient is None


def test_the_lens_is_the_teachers_classifier():
    neck, head = LensNeck(6, 8), nn.Linear(8, 3)
    student, teacher = map_pair()
    aligned = neck(student, teacher, head)
    projected = neck.norm(neck.student_projection(student))
    torch.testing.assert_close(
        aligned.student, head(projected.mean(dim=(2, 3)))
    )
    torch.testing.assert_close(aligned.teacher, head(teacher.mean(dim=(2, 3))))
