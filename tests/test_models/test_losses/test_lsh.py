from fractions import Fraction
from operator import mul

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmdiffkd.models.losses import LSHLoss, lsh
from mmdiffkd.registry import MODELS


def build(**arguments) -> LSHLoss:
    defaults = {'hash_bits': 6, 'hash_std': 1.0, 'bias': 'zero'}
    return LSHLoss(5, **{**defaults, **arguments})


def features(count: int = 4, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 5, generator=generator)


def test_planes_depend_on_the_seed_alone():
    first = build().planes
    state = torch.get_rng_state()
    assert torch.equal(build().planes, first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(build(seed=1).planes, first)


def test_planes_are_standard_normal_and_not_trained():
    loss = build(hash_bits=4000)
    assert loss.planes.mean().abs() < 0.02
    assert (loss.planes.std() - 1).abs() < 0.02
    assert list(loss.parameters()) == []


def test_teacher_is_the_label_and_student_the_logit():
    student, teacher = features(), features(seed=1)
    loss = build(hash_std=0.3, with_l2=False)
    weight = 0.3 * loss.planes
    expected = F.binary_cross_entropy_with_logits(
        student @ weight.T, (teacher @ weight.T > 0).float()
    )
    torch.testing.assert_close(loss(student, teacher), expected)
    both = build(hash_std=0.3)(student, teacher)
    torch.testing.assert_close(both, expected + F.mse_loss(student, teacher))


def test_labels_are_constants():
    teacher = features(seed=1).requires_grad_()
    build(with_l2=False)(features().requires_grad_(), teacher).backward()
    assert teacher.grad is None


def test_std_of_the_teachers_head():
    student, teacher = features(), features(seed=1)
    head = nn.Linear(5, 9).requires_grad_(False)
    loss = build(hash_std='teacher_head')
    expected = build(hash_std=head.weight.std().item())
    torch.testing.assert_close(
        loss(student, teacher, teacher_head=head), expected(student, teacher)
    )
    assert 'head' not in ''.join(loss.state_dict())
    with pytest.raises(ValueError, match="teacher_head='head.fc'"):
        loss(student, teacher)
    with pytest.raises(ValueError, match='which Sequential does not have'):
        loss(student, teacher, teacher_head=nn.Sequential(head))


@pytest.mark.parametrize('count', [8, 9])
@pytest.mark.parametrize('chunk', [2**26, 10])
def test_bias_halves_the_training_set(count, chunk, monkeypatch):
    monkeypatch.setattr(lsh, '_CHUNK', chunk)
    teachers = features(count)
    loss = build(bias='median')
    assert not loss.prepared
    loss.prepare(iter(teachers.split(3)))
    assert loss.prepared
    projected = teachers @ loss.planes.T
    # The lower one, for even counts.
    torch.testing.assert_close(loss.bias, -projected.median(0).values)


def test_feature_on_a_plane_is_below_it():
    # float32 numbers, of which the code is found in exact arithmetic.
    teachers, loss = features(7), build(bias='median', hash_bits=40)
    loss.prepare([teachers])
    rows, planes = (
        [[Fraction(x) for x in row] for row in y.tolist()]
        for y in (teachers, loss.planes)
    )
    for bit, plane in enumerate(planes):
        heights = [sum(map(mul, plane, row)) for row in rows]
        on_plane = sorted(heights)[3]
        above = [height > on_plane for height in heights]
        assert above.count(True) == 3
        assert loss.code(teachers)[:, bit].tolist() == above


def on_planes(
    dtype: torch.dtype, channels: int = 512
) -> tuple[LSHLoss, torch.Tensor]:
    """A loss with 2,000 planes, and samples one of which lies on each.

    As pooled features are, they are not centred.
    """
    generator = torch.Generator().manual_seed(0)
    teachers = torch.randn(100, channels, generator=generator)
    teachers = teachers.relu().to(dtype)
    loss = LSHLoss(channels, hash_bits=2000, hash_std=1.0)
    loss.to(dtype).prepare(teachers.split(64))
    return loss, teachers


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_code_is_that_of_any_batch(dtype):
    loss, teachers = on_planes(dtype)
    code = loss.code(teachers)
    for size in (1, 3, 64):
        parts = [loss.code(part) for part in teachers.split(size)]
        assert torch.equal(torch.cat(parts), code)
    assert torch.equal(loss.code(teachers.flip(0)), code.flip(0))
    columns = teachers.T.contiguous().T
    assert torch.equal(loss.code(columns), code)
    maps = teachers.reshape(4, 5, 5, 512).movedim(-1, 1)
    for map_ in (maps, maps.contiguous()):
        assert torch.equal(loss.code(map_).reshape(code.shape), code)


def test_code_is_that_of_any_number_of_threads():
    # So many channels that threads share the sums of one product.
    loss, teachers = on_planes(torch.float32, channels=2048)
    before = torch.get_num_threads()
    codes = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            codes.append(loss.code(teachers))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(codes[0], codes[1])
    assert torch.equal(codes[0], codes[2])


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_plane_is_as_thin_as_rounding_allows(dtype):
    """A feature is above it from 100 units of rounding on."""
    loss, teachers = on_planes(dtype)
    heights = teachers @ loss.planes.T
    nearest = heights.sort(dim=0).indices[49]
    directions = loss.planes / loss.planes.square().sum(1, keepdim=True)
    length = teachers[nearest].norm(dim=1, keepdim=True)
    step = 100 * torch.finfo(dtype).eps * 512**0.5 * length * directions
    code = loss.code(teachers[nearest] + step).diagonal()
    assert code.all()
    assert not loss.code(teachers[nearest]).diagonal().any()


def test_mean_bias():
    teachers = features(7)
    loss = build(bias='mean')
    loss.prepare(teachers.split(2))
    torch.testing.assert_close(loss.bias, -(teachers @ loss.planes.T).mean(0))


def test_bias_of_maps_is_over_positions():
    maps = torch.randn(4, 5, 2, 3)
    loss = build(bias='mean')
    loss.prepare(maps.split(2))
    rows = maps.movedim(1, -1).reshape(-1, 5)
    torch.testing.assert_close(loss.bias, -(rows @ loss.planes.T).mean(0))


def test_bias_is_that_of_all_processes(monkeypatch):
    here, there = features(4).split(2)
    monkeypatch.setattr(lsh, 'all_gather', lambda rows: [rows, there])
    loss, alone = build(bias='median'), build(bias='median')
    loss.prepare([here])
    monkeypatch.undo()
    alone.prepare([here, there])
    torch.testing.assert_close(loss.bias, alone.bias)


def test_unprepared_bias_is_refused():
    loss = build(bias='median')
    with pytest.raises(RuntimeError, match="'median'.*prepare.*'zero'"):
        loss(features(), features())
    with pytest.raises(ValueError, match='empty'):
        loss.prepare([])
    assert build().prepared


def test_preparation_is_saved():
    prepared, fresh = build(bias='median', seed=1), build(bias='median')
    fresh.load_state_dict(build(bias='median').state_dict())
    assert not fresh.prepared
    prepared.prepare([features(7)])
    fresh.load_state_dict(prepared.state_dict())
    assert fresh.prepared
    student, teacher = features(), features(seed=1)
    assert torch.equal(fresh(student, teacher), prepared(student, teacher))


def test_only_what_the_teacher_knows_counts():
    student, teacher = features(), features(seed=1)
    labels = torch.tensor([0, 1, 2, 0])
    logits = torch.eye(3)[[0, 2, 2, 0]]
    loss = build(sample_filter='teacher_correct')
    right = [0, 2, 3]
    torch.testing.assert_close(
        loss(student, teacher, gt_labels=labels, teacher_logits=logits),
        build()(student[right], teacher[right]),
    )


def test_teacher_that_knows_nothing():
    student = features().requires_grad_()
    labels = torch.zeros(4, dtype=torch.long)
    loss = build(sample_filter='teacher_correct')(
        student,
        features(seed=1),
        gt_labels=labels,
        teacher_logits=torch.eye(3)[labels + 1],
    )
    assert loss.item() == 0
    loss.backward()
    assert torch.equal(student.grad, torch.zeros(4, 5))


@pytest.mark.parametrize(
    'arguments, supplied',
    [
        ({}, set()),
        ({'hash_std': 'teacher_head'}, {'teacher_head'}),
        (
            {'sample_filter': 'teacher_correct'},
            {'gt_labels', 'teacher_logits'},
        ),
    ],
)
def test_asks_for_what_it_needs_alone(arguments, supplied):
    assert set(build(**arguments).supplied) == supplied


def test_missing_labels_are_named():
    loss = build(sample_filter='teacher_correct')
    with pytest.raises(ValueError, match='gt_labels and teacher_logits'):
        loss(features(), features(), gt_labels=torch.zeros(4))


def test_defaults():
    loss = MODELS.build({'type': 'LSHLoss', 'teacher_channels': 5})
    assert loss.planes.shape == (2048, 5)
    assert loss.supplied == ('teacher_head',)
    assert loss.bias_kind == 'median' and loss.with_l2


def test_other_channels():
    with pytest.raises(ValueError, match='teacher_channels=5.*has 4'):
        build()(torch.ones(2, 4), torch.ones(2, 4))
    with pytest.raises(ValueError, match='teacher_channels=5.*has 4'):
        build(bias='mean').prepare([torch.ones(2, 4)])


@pytest.mark.parametrize(
    'arguments, named',
    [
        ({'hash_bits': 0}, 'hash_bits=0'),
        ({'hash_std': 0}, "hash_std=0.*'teacher_head'"),
        ({'hash_std': 'fc'}, "hash_std='fc'.*'teacher_head'"),
        ({'bias': '0'}, "bias='0'.*'median', 'mean', 'zero'"),
        ({'sample_filter': 'right'}, "sample_filter='right'.*'all'"),
    ],
)
def test_arguments_out_of_range(arguments, named):
    with pytest.raises(ValueError, match=named):
        build(**arguments)
