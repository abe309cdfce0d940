import pytest
import torch
from torch.nn import functional as F

from mmdiffkd.models.losses import KLDivergence
from mmdiffkd.registry import MODELS


@pytest.fixture
def logits():
    index = torch.arange(40, dtype=torch.float64)
    student = 3 * torch.sin(0.7 * index + 0.3)
    teacher = 3 * torch.cos(0.9 * index + 0.1)
    return student.reshape(4, 10), teacher.reshape(4, 10)


@pytest.mark.parametrize(
    'reduction, divisor', [('sum', 1), ('batchmean', 4), ('mean', 40)]
)
def test_reductions_of_vectors(logits, reduction, divisor):
    student, teacher = logits
    terms = F.kl_div(
        (student / 2).log_softmax(1),
        (teacher / 2).softmax(1),
        reduction='none',
    )
    loss = KLDivergence(tau=2.0, reduction=reduction)(student, teacher)
    torch.testing.assert_close(loss, 4 * terms.sum() / divisor)


@pytest.mark.parametrize('reduction', ['batchmean', 'sum', 'mean'])
def test_each_position_of_a_map_is_a_distribution(reduction):
    student, teacher = torch.randn(2, 3, 5, 4, 7, dtype=torch.float64)
    loss = KLDivergence(reduction=reduction)
    flat = [x.movedim(1, -1).reshape(-1, 5) for x in (student, teacher)]
    torch.testing.assert_close(loss(student, teacher), loss(*flat))


def test_loss_weight_and_registry(logits):
    loss = MODELS.build({'type': 'KLDivergence', 'loss_weight': 3.0})
    torch.testing.assert_close(loss(*logits), 3 * KLDivergence()(*logits))


def test_equal_logits_cost_nothing(logits):
    loss = KLDivergence(tau=4.0)(logits[0], logits[0] + 7)
    assert loss.abs().item() < 1e-12


def test_teacher_gets_gradients_only_when_asked(logits):
    student, teacher = (x.requires_grad_() for x in logits)
    KLDivergence()(student, teacher).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None
    KLDivergence(teacher_detach=False)(student, teacher).backward()
    assert teacher.grad.abs().sum() > 0


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_float32_under_autocast(dtype):
    student, teacher = 9 * torch.randn(2, 8, 100)
    expected = KLDivergence(tau=4.0)(student, teacher)
    with torch.autocast('cpu', dtype):
        loss = KLDivergence(tau=4.0)(student, teacher)
    assert torch.equal(loss, expected)
    half = [x.to(dtype) for x in (student, teacher)]
    loss = KLDivergence(tau=4.0)(*half)
    assert torch.equal(loss, KLDivergence(tau=4.0)(*[x.float() for x in half]))


def test_is_over_classes():
    assert KLDivergence.over_classes is True


@pytest.mark.parametrize(
    'arguments, named',
    [
        ({'reduction': 'none'}, "reduction='none'.*'batchmean'"),
        ({'reduction': 'average'}, "reduction='average'.*'batchmean'"),
        ({'tau': 0}, 'tau=0'),
    ],
)
def test_arguments_out_of_range(arguments, named):
    with pytest.raises(ValueError, match=named):
        KLDivergence(**arguments)


def test_shapes_must_be_equal():
    with pytest.raises(ValueError, match=r'\(2, 10\).*\(2, 12\)'):
        KLDivergence()(torch.ones(2, 10), torch.ones(2, 12))
