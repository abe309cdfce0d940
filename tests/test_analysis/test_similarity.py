import math

import pytest
import torch

from mmdiffkd.analysis.similarity import LinearCKA, linear_cka

INDEX = torch.arange(32, dtype=torch.float64)
STUDENT = torch.sin(0.51 * INDEX + 0.4).reshape(4, 8)
TEACHER = torch.cos(0.33 * INDEX + 0.6).reshape(4, 8)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_published_definition():
    assert linear_cka(STUDENT, TEACHER) == pytest.approx(
        0.732679368841, abs=1e-9
    )


def test_definition_by_gram_matrices():
    """The same by centred kernels between samples, HSIC's form."""
    x, y = torch.randn(20, 5).double(), torch.randn(20, 7).double()
    center = torch.eye(20).double() - 1 / 20
    k, m = (center @ (z @ z.T) @ center for z in (x, y))
    expected = (k * m).sum() / (k.norm() * m.norm())
    assert linear_cka(x, y) == pytest.approx(expected.item(), abs=1e-12)


def test_what_cka_does_not_see():
    x = torch.randn(50, 6).double()
    rotation, _ = torch.linalg.qr(torch.randn(6, 6).double())
    assert linear_cka(x, 3 * x @ rotation + 7) == pytest.approx(1, abs=1e-12)
    assert linear_cka(x, torch.randn(50, 6)) < 0.5


def test_cka_batch_by_batch():
    x, y = torch.randn(100, 6) + 1000, torch.randn(100, 4) - 1000
    y[:, 0] += x[:, 1]
    whole = linear_cka(x, y)
    alignment = LinearCKA()
    for rows in ((0, 1), (1, 40), (40, 40), (40, 100)):
        alignment.update(x[slice(*rows)], y[slice(*rows)])
    # Far from 0, where sums of squares alone would lose the digits.
    assert alignment.compute() == pytest.approx(whole, abs=1e-12)
    centred = linear_cka(x.double() - 1000, y.double() + 1000)
    assert whole == pytest.approx(centred, abs=1e-12)


@pytest.mark.parametrize('value', [0.0, 1.0, 0.1, 0.3, 1e-3])
@pytest.mark.parametrize('count', [1, 3, 7, 100])
def test_cka_of_a_constant(value, count):
    """Also where the mean of equal numbers is rounded to another one."""
    constant = torch.full((count, 2), value, dtype=torch.float64)
    other = torch.randn(count, 3)
    assert math.isnan(linear_cka(constant, other))
    assert math.isnan(linear_cka(other, constant))
    alignment = LinearCKA()
    for i in range(count):
        alignment.update(constant[i : i + 1], other[i : i + 1])
    assert math.isnan(alignment.compute())


def test_cka_of_what_hardly_moves():
    x, y = torch.randn(2, 50, 6).double()
    expected = linear_cka(x, y)
    assert linear_cka(1e-8 * x + 1, y) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    'shapes', [((4, 3), (5, 3)), ((4, 3, 2, 2), (4, 3)), ((4,), (4, 3))]
)
def test_cka_of_other_shapes(shapes):
    with pytest.raises(ValueError, match='give vectors'):
        linear_cka(*map(torch.ones, shapes))


def test_cka_without_samples():
    with pytest.raises(ValueError, match='no samples'):
        LinearCKA().compute()
