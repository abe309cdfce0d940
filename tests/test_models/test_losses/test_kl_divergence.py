import pytest
import torch
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
    ],
)
def test_arguments_out_of_range(arguments, named):
    with pytest.raises(ValueError, match=named):
        KLDivergence(**arguments)
