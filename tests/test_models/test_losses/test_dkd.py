import pytest
import torch

from mmdiffkd.models.losses import DKDLoss, KLDivergence


@pytest.mark.parametrize('tau', [1.0, 4.0])
def test_parts_make_up_the_divergence(tau):
    """KL = TCKD + (1 - the teacher's probability of the class) * NCKD."""
    student, teacher = 3 * torch.randn(2, 1, 6, dtype=torch.float64)
    label = torch.tensor([2])
    others = 1 - (teacher / tau).softmax(1)[0, 2].item()
    decoupled = DKDLoss(tau=tau, beta=others)(student, teacher, label)
    torch.testing.assert_close(
        decoupled, KLDivergence(tau=tau)(student, teacher)
    )


def test_the_others_count_when_the_target_is_certain():
    others = torch.tensor([[1.0, 0.0, -1.0], [-1.0, 0.0, 1.0]])
    # exp(-200) is 0 in float32.
    logits = torch.cat([torch.full((2, 1), 200.0), others], dim=1)
    student, teacher = logits.split(1)
    student.requires_grad_()
    loss = DKDLoss(alpha=0.0)(student, teacher, torch.tensor([0]))
    expected = KLDivergence()(*others.split(1))
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert student.grad[0, 0] == 0
    assert (student.grad[0, 1:] != 0).any()


def test_reductions():
    student, teacher = torch.randn(2, 4, 6)
    labels = torch.tensor([0, 5, 2, 2])
    total = DKDLoss(reduction='sum')(student, teacher, labels)
    torch.testing.assert_close(total / 4, DKDLoss()(student, teacher, labels))


def test_two_classes_have_no_others():
    student, teacher = torch.randn(2, 4, 2)
    labels = torch.tensor([0, 1, 1, 0])
    nckd = DKDLoss(alpha=0.0)(student, teacher, labels)
    assert nckd == 0
    torch.testing.assert_close(
        DKDLoss(beta=0.0)(student, teacher, labels),
        KLDivergence()(student, teacher),
    )


@pytest.mark.parametrize(
    'arguments, named',
    [
        ({'reduction': 'mean'}, "reduction='mean'.*reduction='batchmean'"),
        ({'reduction': 'none'}, "reduction='none'.*reduction='batchmean'"),
        ({'tau': 0}, 'tau=0'),
    ],
)
def test_arguments_out_of_range(arguments, named):
    with pytest.raises(ValueError, match=named):
        DKDLoss(**arguments)


@pytest.mark.parametrize(
    'shape, message',
    [
        ((2, 5, 3, 3), 'compares vectors.*KLDivergence.*take maps'),
        ((2, 1), r'\(2, 1\).*one class.*BinaryKLDivergence'),
    ],
)
def test_only_vectors_of_two_classes_or_more(shape, message):
    with pytest.raises(ValueError, match=message):
        DKDLoss()(torch.ones(shape), torch.ones(shape), torch.tensor([0, 0]))
