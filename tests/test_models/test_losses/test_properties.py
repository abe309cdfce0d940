"""What holds for every loss."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mmdiffkd.models import losses
from mmdiffkd.registry import MODELS

VECTOR, MAP = (10,), (3, 5, 4)
LOSSES = [name for name in losses.__all__ if name != 'DistillLoss']


@dataclass(frozen=True)
class Case:
    """How to call a loss: its arguments and the shape of a sample."""

    shape: tuple[int, ...]
    arguments: dict = field(default_factory=dict)
    supply: Callable[[int], dict] = lambda batch: {}
    make_ready: Callable[[nn.Module], object] = lambda loss: None
    # The most that it may be where student and teacher are identical, in
    # float64; None where it does not vanish by its nature.
    identical: float | None = 1e-14


def labels(batch: int) -> dict:
    return {'gt_labels': 3 * torch.arange(batch) % 10}


def labels_and_logits(batch: int) -> dict:
    # Right on the first half of the samples, at least one of them.
    given = labels(batch)['gt_labels']
    wrong = torch.arange(batch) > batch // 2
    logits = torch.eye(10)[(given + wrong) % 10]
    return {'gt_labels': given, 'teacher_logits': logits}


def head_of_the_teacher(batch: int) -> dict:
    return {'teacher_head': nn.Linear(10, 3).requires_grad_(False)}


def rows_of_banks(batch: int) -> dict:
    rows = torch.arange(batch)
    return {
        'gt_labels': rows % 4,
        'sample_idx': rows,
        'draws': torch.arange(6 * batch).reshape(batch, 6),
    }


def fill_banks(loss: nn.Module) -> None:
    loss.allocate(20, torch.arange(20) % 4)
    # Otherwise it is found from the batch, as if it were a constant.
    loss.normalizers.fill_(20.0)
    loss.eval()


def objects(batch: int) -> dict:
    box = torch.tensor([[8.0, 4.0, 30.0, 20.0], [0.0, 0.0, 9.0, 40.0]])
    return {
        'gt_bboxes': [box[: i % 3] for i in range(batch)],
        'batch_input_shape': (40, 32),
    }


CASES = {
    'ATLoss': Case(MAP),
    'AngleWiseRKD': Case(VECTOR),
    'AngleWiseRKD, as it is': Case(VECTOR, {'with_l2_norm': False}),
    'AngleWiseRKD, maps': Case(MAP),
    'CRDLoss': Case(
        VECTOR,
        {
            'student_channels': 10,
            'teacher_channels': 10,
            'neg_num': 6,
            'dim_out': 5,
        },
        rows_of_banks,
        fill_banks,
        identical=None,
    ),
    'BinaryKLDivergence': Case(VECTOR, {'tau': 4.0}),
    'BinaryKLDivergence, maps': Case((1, 5, 4)),
    'ChannelWiseDivergence': Case(MAP, {'tau': 2.0}),
    'DISTLoss': Case(VECTOR, identical=1e-6),
    'DISTLoss, maps': Case(MAP, identical=1e-6),
    'DKDLoss': Case(VECTOR, {'tau': 2.0, 'beta': 8.0}, labels),
    'DirectionAlignmentLoss': Case(VECTOR),
    'DirectionAlignmentLoss, maps': Case(MAP),
    'DistanceWiseRKD': Case(VECTOR),
    'DistanceWiseRKD, as it is': Case(VECTOR, {'with_l2_norm': False}),
    'DistanceWiseRKD, maps': Case(MAP),
    'FGDLoss': Case(MAP, {'teacher_channels': 3}, objects),
    'HCLLoss': Case((2, 6, 5)),
    'HCLLoss, vectors': Case(VECTOR),
    'KLDivergence': Case(VECTOR, {'tau': 4.0}),
    'KLDivergence, maps': Case(MAP),
    'KLDivergence, groups': Case((12, 5, 4), {'groups': 4}),
    'LDLoss': Case((12, 5, 4), {}, objects),
    'LDLoss, all positions': Case((12, 5, 4), {'region': 'all'}),
    'LSHLoss': Case(
        VECTOR,
        {
            'teacher_channels': 10,
            'hash_bits': 7,
            'hash_std': 0.5,
            'bias': 'zero',
            'sample_filter': 'teacher_correct',
        },
        labels_and_logits,
        identical=None,
    ),
    "LSHLoss, the head's deviation": Case(
        VECTOR,
        {
            'teacher_channels': 10,
            'hash_bits': 7,
            'hash_std': 'teacher_head',
            'bias': 'zero',
        },
        head_of_the_teacher,
        identical=None,
    ),
    'LSHLoss, maps': Case(
        MAP,
        {
            'teacher_channels': 3,
            'hash_bits': 7,
            'hash_std': 0.5,
            'bias': 'zero',
            'with_l2': False,
        },
        identical=None,
    ),
    'MGDLoss': Case(MAP),
    'MSELoss': Case(VECTOR),
    'MSELoss, maps': Case(MAP),
    'PKDLoss': Case(MAP),
    'PKDLoss, one pixel': Case((3, 1, 1)),
    'PKTLoss': Case(VECTOR),
    'SPLoss': Case(VECTOR),
    'SPLoss, maps': Case(MAP),
    'RADIOLoss': Case(VECTOR),
    'RADIOLoss, maps': Case(MAP),
    'SmoothL1Loss': Case(VECTOR, {'beta': 0.5}),
    'SmoothL1Loss, normalized teacher': Case(
        MAP, {'normalize_teacher': True}, identical=None
    ),
    'VIDLoss': Case(VECTOR, {'teacher_channels': 10}, identical=None),
    'VIDLoss, maps': Case(MAP, {'teacher_channels': 3}, identical=None),
}
# A loss that takes nothing but two tensors needs no line above.
for _name in {*LOSSES} - {case.split(',')[0] for case in CASES}:
    _map = getattr(losses, _name).feature == 'map'
    CASES[_name] = Case(MAP if _map else VECTOR)
each_case = pytest.mark.parametrize('name', CASES)


def build(name: str, **arguments) -> nn.Module:
    kind = name.split(',')[0]
    torch.manual_seed(0)
    loss = MODELS.build({'type': kind, **CASES[name].arguments, **arguments})
    CASES[name].make_ready(loss)
    return loss.double()


def features(batch: int, *shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *shape, dtype=torch.float64, generator=generator)


def pair(name: str, batch: int = 3) -> tuple[Tensor, Tensor]:
    shape = CASES[name].shape
    return features(batch, *shape), features(batch, *shape, seed=1)


def test_every_loss_has_a_case():
    assert {name.split(',')[0] for name in CASES} == set(LOSSES)


@each_case
def test_gradient(name):
    student, teacher = pair(name)
    loss = build(name)
    supply = CASES[name].supply(len(student))
    student.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda preds_S: loss(preds_S, teacher, **supply), student
    )
    loss(student, teacher, **supply).backward()
    only_value = name == 'PKDLoss, one pixel'
    assert only_value or student.grad.abs().sum() > 0


@pytest.mark.parametrize(
    'name', [name for name in CASES if CASES[name].identical is not None]
)
def test_vanishes_for_identical_tensors(name):
    for batch in (8, 16):
        student = features(batch, *CASES[name].shape)
        supply = CASES[name].supply(batch)
        loss = build(name)(student, student, **supply)
        assert loss.abs() <= CASES[name].identical


INPUTS = {
    'ordinary': (1, 1),
    'student all zero': (0, 1),
    'teacher all zero': (1, 0),
    'both all zero': (0, 0),
    'large': (1e4, 1e4),
    'large student': (1e4, 1),
}


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('batch', [1, 4])
@pytest.mark.parametrize('scales', INPUTS.values(), ids=INPUTS)
@each_case
def test_finite_under_autocast(name, scales, batch, dtype):
    student, teacher = (
        (scale * x).to(dtype) for scale, x in zip(scales, pair(name, batch))
    )
    supply = CASES[name].supply(batch)
    student.requires_grad_()
    loss = build(name).float()
    whole = student.float(), teacher.float()
    expected = loss(*whole, **supply)
    with torch.autocast('cpu', dtype):
        value = loss(student, teacher, **supply)
        assert torch.equal(loss(*whole, **supply), expected)
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert torch.equal(value, expected)
    value.backward()
    # In half precision itself, as a network's layers get it.
    assert student.grad.dtype == dtype
    assert student.grad.isfinite().all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@each_case
def test_finite_in_a_converted_module(name, dtype):
    """As DeepSpeed and FSDP convert it, and its parameters with it."""
    loss = build(name).to(dtype)
    student, teacher = (x.to(dtype) for x in pair(name))
    student.requires_grad_()
    value = loss(student, teacher, **CASES[name].supply(3))
    assert value.dtype == torch.float32
    assert value.isfinite()
    value.backward()
    assert student.grad.isfinite().all()


@each_case
def test_ends_in_loss_weight(name):
    student, teacher = pair(name)
    supply = CASES[name].supply(len(student))
    once, thrice = (
        build(name, loss_weight=weight)(student, teacher, **supply)
        for weight in (2.0, 6.0)
    )
    torch.testing.assert_close(thrice, 3 * once, rtol=1e-12, atol=0)
    assert once.shape == ()


@pytest.mark.exact
@pytest.mark.parametrize('name', LOSSES)
def test_compiles_into_one_graph(name):
    student, teacher = pair(name)
    supply = CASES[name].supply(len(student))
    loss = build(name)
    torch._dynamo.reset()
    compiled = torch.compile(loss, backend='eager', fullgraph=True)
    assert torch.equal(
        compiled(student, teacher, **supply), loss(student, teacher, **supply)
    )


@each_case
def test_does_not_wait_for_the_device(name):
    student, teacher = pair(name)
    supply = CASES[name].supply(len(student))
    loss = build(name).train()
    # A value that Python asked for would be an error here.
    with FakeTensorMode(allow_non_fake_inputs=True):
        for _ in range(2):
            loss(student.requires_grad_(), teacher, **supply).backward()


@pytest.mark.parametrize(
    'name, arguments',
    [
        ('DISTLoss, maps', {}),
        ('DirectionAlignmentLoss, maps', {}),
        ('BinaryKLDivergence, maps', {'reduction': 'batchmean'}),
        ('BinaryKLDivergence, maps', {'reduction': 'mean'}),
        ('BinaryKLDivergence, maps', {'reduction': 'sum'}),
        ('KLDivergence, maps', {'reduction': 'batchmean'}),
        ('KLDivergence, maps', {'reduction': 'mean'}),
        ('KLDivergence, maps', {'reduction': 'sum'}),
        ('KLDivergence, groups', {}),
        ('LSHLoss, maps', {'with_l2': True}),
        ('RADIOLoss, maps', {}),
        ('SmoothL1Loss, normalized teacher', {}),
    ],
)
def test_positions_of_a_map_are_samples(name, arguments):
    loss, maps = build(name, **arguments), pair(name)
    rows = [x.movedim(1, -1).reshape(-1, x.shape[1]) for x in maps]
    torch.testing.assert_close(loss(*maps), loss(*rows))


@pytest.mark.parametrize(
    'name',
    [
        'AngleWiseRKD',
        'DistanceWiseRKD',
        'PKDLoss, one pixel',
        'PKTLoss',
        'SPLoss',
    ],
)
def test_relations_of_a_lone_value_cost_nothing(name):
    student, teacher = pair(name, batch=1)
    student.requires_grad_()
    loss = build(name)(student, teacher)
    assert loss == 0
    loss.backward()
    assert torch.equal(student.grad, torch.zeros_like(student))


@pytest.mark.parametrize(
    'name', [name for name in LOSSES if getattr(losses, name).feature]
)
def test_maps_or_vectors_alone(name):
    loss = build(name)
    other = torch.ones((3, 10) if loss.feature == 'map' else (3, 10, 2, 2))
    shape = str(tuple(other.shape)).strip(')')
    with pytest.raises(
        ValueError, match=rf'{name} compares {loss.feature}s.*\{shape}'
    ):
        loss(other, other, **CASES[name].supply(3))


@each_case
def test_channels(name):
    shape = CASES[name].shape
    student = features(3, *shape)
    teacher = features(3, shape[0] + 2, *shape[1:])
    supply = CASES[name].supply(3)
    arguments = CASES[name].arguments
    if 'teacher_channels' in arguments:
        arguments = {'teacher_channels': shape[0] + 2}
    loss = build(name, **arguments)
    if loss.any_channels:
        assert loss(student, teacher, **supply).isfinite()
    else:
        with pytest.raises(ValueError, match=r'preds_S.*preds_T.*neck'):
            loss(student, teacher, **supply)


# CRD embeds either side on its own.
@pytest.mark.parametrize('name', [name for name in CASES if name != 'CRDLoss'])
def test_other_sizes_must_be_equal(name):
    student, teacher = pair(name)
    supply = CASES[name].supply(3)
    others = [teacher[:2], teacher[..., None]]
    if CASES[name].shape[2:] > (1,):
        others.append(teacher[..., :2])
    for other in others:
        with pytest.raises(ValueError, match='preds_S of shape|has the shape'):
            build(name)(student, other, **supply)


@pytest.mark.parametrize(
    'attribute, value, names',
    [
        (
            'feature',
            'map',
            'ATLoss ChannelWiseDivergence FGDLoss GramLoss LDLoss PKDLoss',
        ),
        ('feature', 'vector', 'CRDLoss DKDLoss'),
        (
            'over_classes',
            True,
            'BinaryKLDivergence DISTLoss DKDLoss KLDivergence',
        ),
        ('activation', 'softmax', 'DISTLoss DKDLoss KLDivergence LDLoss'),
        ('activation', 'sigmoid', 'BinaryKLDivergence'),
        (
            'any_channels',
            True,
            'ATLoss AngleWiseRKD CRDLoss DistanceWiseRKD GramLoss PKTLoss '
            'SPLoss',
        ),
    ],
)
def test_what_an_entry_reads_off_the_classes(attribute, value, names):
    assert names.split() == [
        name
        for name in sorted(LOSSES)
        if getattr(getattr(losses, name), attribute) == value
    ]
