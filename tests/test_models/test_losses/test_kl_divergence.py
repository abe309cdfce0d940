import pytest
import torch
from torch.distributions import Categorical, kl_divergence
from torch.nn import functional as F

from mmdiffkd.models.losses import KLDivergence


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


@pytest.mark.parametrize('size', [(), (1, 1), (2, 3)])
def test_groups_are_distributions_of_their_own(size):
    """The channel is group * bins + bin: 3 groups of 5 bins."""
    student, teacher = 3 * torch.randn(2, 4, 15, *size, dtype=torch.float64)
    terms = []
    for first in (0, 5, 10):
        of_teacher, of_student = (
            Categorical(logits=x[:, first : first + 5].movedim(1, -1) / 2)
            for x in (teacher, student)
        )
        terms.append(4 * kl_divergence(of_teacher, of_student))
    terms = torch.stack(terms)
    expected = {
        'sum': terms.sum(),
        'batchmean': terms.mean(),
        'mean': terms.mean() / 5,
    }
    for reduction, value in expected.items():
        loss = KLDivergence(tau=2.0, reduction=reduction, groups=3)
        torch.testing.assert_close(loss(student, teacher), value)


@pytest.mark.exact
@pytest.mark.parametrize(
    'layout', [torch.contiguous_format, torch.channels_last]
)
def test_one_group_is_a_plain_softmax_to_the_last_bit(layout):
    student, teacher = (
        x.to(memory_format=layout) for x in torch.randn(2, 3, 7, 5, 6)
    )
    expected = F.kl_div(
        F.log_softmax(student / 4, dim=1),
        F.log_softmax(teacher / 4, dim=1),
        reduction='sum',
        log_target=True,
    )
    found = KLDivergence(tau=4, groups=1)(student, teacher)
    assert torch.equal(found, 16 * (expected / 90))


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


@pytest.mark.parametrize(
    'arguments, named',
    [
        ({'reduction': 'none'}, "reduction='none'.*'batchmean'"),
        ({'reduction': 'average'}, "reduction='average'.*'batchmean'"),
        ({'tau': 0}, 'tau=0'),
        ({'groups': 0}, 'groups=0'),
        ({'groups': 4.0}, r'groups=4\.0 must be an integer'),
    ],
)
def test_arguments_out_of_range(arguments, named):
    with pytest.raises(ValueError, match=named):
        KLDivergence(**arguments)
