import pytest
import torch
from torch.distributions import Normal

from mmdiffkd.models.losses import VIDLoss

HALF_LOG_TWO_PI = 0.5 * torch.log(torch.tensor(2 * torch.pi))


@pytest.mark.parametrize('shape', [(4, 3), (4, 3, 2, 5)])
def test_is_a_likelihood(shape):
    loss = VIDLoss(3)
    with torch.no_grad():
        loss.raw_variance.copy_(torch.tensor([-1.0, 0.0, 2.0]))
    mean, teacher = torch.randn(2, *shape)
    deviation = loss.variance.sqrt().reshape(3, *[1] * (len(shape) - 2))
    expected = -Normal(mean, deviation).log_prob(teacher).mean()
    torch.testing.assert_close(loss(mean, teacher), expected - HALF_LOG_TWO_PI)


@pytest.mark.parametrize('variance', [5.0, 0.25])
def test_initial_variance(variance):
    loss = VIDLoss(7, init_pred_var=variance, eps=1e-2)
    torch.testing.assert_close(loss.variance, torch.full((7,), variance))


def test_variances_stay_above_eps():
    loss = VIDLoss(2, eps=1e-3)
    with torch.no_grad():
        loss.raw_variance.fill_(-1e4)
    torch.testing.assert_close(loss.variance, torch.full((2,), 1e-3))
    mean = torch.randn(4, 2, requires_grad=True)
    loss(mean, torch.randn(4, 2)).backward()
    assert mean.grad.isfinite().all()
    assert loss.raw_variance.grad.isfinite().all()


def test_variances_are_trained_to_the_mean_squared_error():
    scale = torch.tensor([0.5, 1.0, 2.0])
    mean = torch.zeros(64, 3)
    teacher = scale * torch.randn(64, 3)
    loss = VIDLoss(3)
    assert [name for name, _ in loss.named_parameters()] == ['raw_variance']
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.1)
    for _ in range(400):
        optimizer.zero_grad()
        loss(mean, teacher).backward()
        optimizer.step()
    expected = teacher.square().mean(0)
    torch.testing.assert_close(loss.variance, expected, rtol=1e-3, atol=0)


def test_gradient_of_the_variances():
    mean, teacher = torch.randn(2, 4, 3, dtype=torch.float64)
    loss = VIDLoss(3).double()
    raw = loss.raw_variance.detach().requires_grad_()

    def function(raw):
        arguments = mean, teacher
        state = {'raw_variance': raw}
        return torch.func.functional_call(loss, state, arguments)

    assert torch.autograd.gradcheck(function, raw)


def test_other_channels():
    tensor = torch.ones(2, 4)
    with pytest.raises(ValueError, match='teacher_channels=1.*has 4'):
        VIDLoss(1)(tensor, tensor)


@pytest.mark.parametrize(
    'arguments, named',
    [
        ({'init_pred_var': 1e-6}, 'init_pred_var=1e-06.*eps=1e-05'),
        ({'eps': 0.0}, 'eps=0.0'),
    ],
)
def test_arguments_out_of_range(arguments, named):
    with pytest.raises(ValueError, match=named):
        VIDLoss(3, **arguments)
