from math import sqrt

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmdiffkd.models.necks import ReviewKDNeck

# Channels and sizes of a residual network for CIFAR, and of a teacher's.
STUDENT = [(4, 16, 16), (6, 8, 8), (10, 4, 4)]
TEACHER = [(8, 32, 32), (12, 8, 8), (14, 2, 2)]


def make(students=STUDENT, teachers=TEACHER, batch_size=2, **arguments):
    neck = ReviewKDNeck(
        [s[0] for s in students], [t[0] for t in teachers], **arguments
    )
    features = [
        [torch.randn(batch_size, *shape, requires_grad=True) for shape in side]
        for side in (students, teachers)
    ]
    return neck, *features


def test_levels():
    neck, students, teachers = make()
    assert neck.joint
    aligned = neck(students, teachers)
    shapes = [tuple(t.shape[1:]) for t in aligned.student]
    assert shapes == [*TEACHER, (14, 1, 1)]
    for ours, theirs in zip(aligned.teacher, teachers):
        assert torch.equal(ours, theirs)
        assert not ours.requires_grad
    pooled = teachers[-1].relu().mean(dim=(2, 3), keepdim=True)
    torch.testing.assert_close(aligned.teacher[-1], pooled)


def test_layers():
    neck, *_ = make()
    assert len(neck.fusions) == 4
    assert [f.attention is None for f in neck.fusions] == [False] * 3 + [True]
    for fusion, ((s, *_), (t, *_)) in zip(neck.fusions, zip(STUDENT, TEACHER)):
        assert fusion.reduction[0].weight.shape == (10, s, 1, 1)
        assert fusion.output[0].weight.shape == (t, 10, 3, 3)
        assert fusion.attention[0].weight.shape == (2, 20, 1, 1)
        for convolution in (fusion.reduction[0], fusion.output[0]):
            assert convolution.bias is None
            fan_in = convolution.weight[0].numel()
            largest = convolution.weight.abs().max().item()
            bound = sqrt(3 / fan_in)  # kaiming_uniform with a = 1
            assert 0.9 * bound < largest <= bound


@pytest.mark.parametrize(
    'channels, arguments, expected',
    [
        ([64, 256], {}, 256),
        ([64, 2048], {}, 512),
        ([64, 256], {'mid_channels': 32}, 32),
    ],
)
def test_mid_channels(channels, arguments, expected):
    neck = ReviewKDNeck(channels, [8, 8], **arguments)
    assert neck.fusions[0].reduction[0].out_channels == expected


def test_fusion_by_hand():
    """One channel, layers that copy, attention of one half on either side."""
    neck = ReviewKDNeck([1, 1], [1, 1]).eval()
    for module in neck.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-12
        if isinstance(module, nn.Conv2d):
            nn.init.dirac_(module.weight)
    for fusion in neck.fusions[:-1]:
        nn.init.zeros_(fusion.attention[0].weight)
        nn.init.zeros_(fusion.attention[0].bias)
    shallow, deep = torch.randn(1, 1, 4, 4), torch.randn(1, 1, 2, 2)
    teachers = [torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 2, 2)]

    pooled = deep.relu().mean(dim=(2, 3), keepdim=True)
    merged = (deep + pooled) / 2
    bottom = shallow + merged.repeat_interleave(2, 2).repeat_interleave(2, 3)
    bottom = (bottom / 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    aligned = neck([shallow, deep], teachers)
    for found, expected in zip(aligned.student, [bottom, merged, pooled]):
        torch.testing.assert_close(found, expected)


def test_attention_weighs_both():
    neck, students, teachers = make()
    fusion = neck.eval().fusions[0]
    passed = torch.randn(2, 10, 8, 8)
    x = fusion.reduction(students[0])
    y = F.interpolate(passed, (16, 16))
    weights = fusion.attention(torch.cat([x, y], dim=1))
    assert weights.shape == (2, 2, 16, 16)
    expected = x * weights[:, 0:1] + y * weights[:, 1:2]
    output, merged = fusion(students[0], passed, (16, 16))
    torch.testing.assert_close(merged, expected)
    torch.testing.assert_close(output, fusion.output(expected))


def test_review_goes_from_deep_to_shallow():
    neck, students, teachers = make()
    outputs = neck(students, teachers).student
    reached = []
    for output in outputs:
        gradients = torch.autograd.grad(
            output.square().sum(),
            students,
            retain_graph=True,
            allow_unused=True,
        )
        reached.append([g is not None for g in gradients])
    assert reached == [
        [True, True, True],
        [False, True, True],
        [False, False, True],
        [False, False, True],
    ]


def test_vectors_are_a_level_of_their_own():
    neck, students, teachers = make(
        [*STUDENT, (20,)], [*TEACHER, (24,)], pooled=False
    )
    aligned = neck(students, teachers)
    assert aligned.student[-1].shape == (2, 24, 1, 1)
    assert torch.equal(aligned.teacher[-1][..., 0, 0], teachers[-1])


def test_one_level_without_pooling():
    neck, students, teachers = make(STUDENT[:1], TEACHER[:1], pooled=False)
    assert len(neck(students, teachers).student) == 1
    assert neck.fusions[0].attention is None


@pytest.mark.parametrize(
    'arguments, message',
    [
        ((), r'student_channels\[0\]=None'),
        (([4, 6],), r'teacher_channels\[0\]=None'),
        (([4, 0], [4, 6]), r'student_channels\[1\]=0'),
        (([4, 6], [4]), 'differ in number'),
        (([4, 6], [4, 6], 0), 'mid_channels=0'),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        ReviewKDNeck(*arguments)


def test_other_tensors_than_announced():
    neck, students, teachers = make()
    with pytest.raises(ValueError, match='2 tensors of the student'):
        neck(students[:2], teachers)
    with pytest.raises(ValueError, match='teacher.*has 14 channels'):
        neck(students, teachers[::-1])


def test_a_lone_image_has_one_pooled_value():
    neck, students, teachers = make(batch_size=1)
    with pytest.raises(ValueError, match=r'\(1, 10, 1, 1\).*drop_last=True'):
        neck(students, teachers)
    neck.eval()(students, teachers)
