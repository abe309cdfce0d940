import math

import pytest
import tiny_segmenters
import torch
from tiny_detectors import step
from torch.distributions import Bernoulli, kl_divergence
from torch.nn import functional as F

from mmdiffkd.models.losses import BinaryKLDivergence

SHAPES = [(4, 10), (4, 1), (4, 3, 5, 2), (4, 1, 5, 2)]


def logits(*shape):
    return 3 * torch.randn(2, *shape, dtype=torch.float64)


@pytest.mark.parametrize('tau', [1.0, 4.0])
@pytest.mark.parametrize('shape', SHAPES)
def test_value(shape, tau):
    student, teacher = logits(*shape)
    terms = tau**2 * kl_divergence(
        Bernoulli(logits=teacher / tau), Bernoulli(logits=student / tau)
    )
    expected = {
        'sum': terms.sum(),
        # The mean over samples and positions of the sum over classes.
        'batchmean': terms.sum(1).mean(),
        'mean': terms.mean(),
    }
    for reduction, value in expected.items():
        found = BinaryKLDivergence(tau, reduction)(student, teacher)
        torch.testing.assert_close(found, value, rtol=1e-12, atol=0)


def test_value_by_hand():
    # A probability of 3/4 taught to one of 1/2.
    student = torch.zeros(1, 1, dtype=torch.float64)
    teacher = student + math.log(3)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    found = BinaryKLDivergence(loss_weight=2.0)(student, teacher)
    assert found.item() == pytest.approx(2 * expected, rel=1e-12)


@pytest.mark.parametrize('tau', [1.0, 4.0])
@pytest.mark.parametrize('shape', SHAPES)
def test_gradient(shape, tau):
    student, teacher = logits(*shape)
    student.requires_grad_()
    BinaryKLDivergence(tau)(student, teacher).backward()
    count = student.numel() // shape[1]
    difference = (student / tau).sigmoid() - (teacher / tau).sigmoid()
    torch.testing.assert_close(
        student.grad, tau * difference / count, rtol=1e-12, atol=1e-15
    )


def test_equal_logits():
    student, teacher = logits(4, 10)
    student = teacher.clone().requires_grad_()
    loss = BinaryKLDivergence(tau=2.0)(student, teacher)
    assert loss == 0
    loss.backward()
    assert student.grad.abs().max() < 1e-15


def test_certain_networks():
    """In float32 both probabilities round to 0 or 1."""
    student = torch.tensor([[30.0, -30.0]], requires_grad=True)
    teacher = torch.tensor([[20.0, -20.0]])
    loss = BinaryKLDivergence()(student, teacher)
    exact = kl_divergence(
        Bernoulli(logits=-teacher.double()),
        Bernoulli(logits=-student.double()),
    )
    # The smaller probability, of which float64 knows every digit.
    small, large = torch.tensor([30.0, 20.0]).double().neg().exp()
    expected = 10 * large + small - large
    torch.testing.assert_close(exact, expected.expand(1, 2), rtol=1e-6, atol=0)
    assert loss.item() == pytest.approx(2 * expected.item(), rel=1e-6)
    loss.backward()
    slope = (large - small).item()
    assert student.grad.tolist()[0] == pytest.approx([slope, -slope], rel=1e-6)


def test_logits_without_bounds():
    student = torch.tensor([[1e4, -1e4, 1e4]], requires_grad=True)
    teacher = torch.tensor([[1e4, 1e4, -1e4]])
    loss = BinaryKLDivergence()(student, teacher)
    assert loss == 2e4
    loss.backward()
    assert student.grad.tolist() == [[0, -1, 1]]


def test_it_is_the_cross_entropy_less_the_teachers_entropy():
    student, teacher = logits(4, 10)

    def cross_entropy(x):
        return F.binary_cross_entropy_with_logits(
            x, teacher.sigmoid(), reduction='sum'
        )

    expected = (cross_entropy(student) - cross_entropy(teacher)) / 4
    torch.testing.assert_close(
        BinaryKLDivergence()(student, teacher), expected
    )


def test_no_gradient_to_the_teacher():
    student, teacher = (x.requires_grad_() for x in logits(4, 10))
    BinaryKLDivergence()(student, teacher).backward()
    assert teacher.grad is None


@pytest.mark.parametrize(
    'arguments, named',
    [
        ({'reduction': 'none'}, "reduction='none'.*'batchmean'"),
        ({'tau': 0}, 'tau=0'),
    ],
)
def test_arguments_out_of_range(arguments, named):
    with pytest.raises(ValueError, match=named):
        BinaryKLDivergence(**arguments)


def test_segmentation_with_one_output_channel(ready):
    entry = dict(
        at='decode_head.conv_seg', loss=dict(type='BinaryKLDivergence')
    )
    config = tiny_segmenters.distiller('fcn', dict(maps=entry))
    for model in (config['student'], config['teacher']['config']['model']):
        for head in (model.decode_head, model.auxiliary_head):
            head.update(num_classes=2, out_channels=1, threshold=0.3)
            head.loss_decode.use_sigmoid = True
    model = ready(config)
    assert model.distill.maps.shapes[0][0][1] == 1
    data = tiny_segmenters.batch(model)
    for sample in data['data_samples']:
        sample.gt_sem_seg.data.clamp_(max=1)
    model.train()
    loss = model(**data, mode='loss')['distill.maps.loss_kd']
    assert loss > 0
    # Of the distillation alone, without the task's loss.
    gradients = torch.autograd.grad(
        loss, [*model.student.backbone.parameters()]
    )
    assert any(gradient.any() for gradient in gradients)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert all(value.isfinite() for value in step(model, data).values())
