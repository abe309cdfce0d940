import math

import pytest
import torch

from mmdiffkd.utils.similarity import (
    CalibrationError,
    LinearCKA,
    expected_calibration_error,
    linear_cka,
)

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


def test_calibration_by_hand():
    """Two of three right at 0.9, one of two at 0.65, none of one at 0.5."""
    probabilities = torch.tensor(
        [[0.9, 0.1]] * 3 + [[0.35, 0.65]] * 2 + [[0.5, 0.5]]
    )
    labels = torch.tensor([0, 0, 1, 1, 0, 1])
    expected = (3 * abs(2 / 3 - 0.9) + 2 * abs(0.5 - 0.65) + 0.5) / 6
    found = expected_calibration_error(probabilities, labels)
    assert found == pytest.approx(expected, abs=1e-7)
    # In one bin, what is too sure makes up for what is not.
    expected = abs(3 / 6 - (3 * 0.9 + 2 * 0.65 + 0.5) / 6)
    found = expected_calibration_error(probabilities, labels, bins=1)
    assert found == pytest.approx(expected, abs=1e-7)


def test_a_bin_holds_its_upper_edge():
    probabilities = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.3, 0.45]])
    labels = torch.tensor([0, 0])
    # Both in (0.25, 0.5]: one of two right.
    found = expected_calibration_error(probabilities, labels, bins=4)
    assert found == pytest.approx(0.5 - 0.475, abs=1e-7)


@pytest.mark.parametrize('bins', [3, 7, 10, 15])
def test_edges_are_those_that_people_write(bins):
    """Right at the edge and wrong just above it are two bins."""
    confidence = torch.arange(1, bins, dtype=torch.float64) / bins
    confidence = confidence[confidence > 0.5]
    both = torch.stack([confidence, confidence.nextafter(torch.ones(1))])
    for lower, upper in both.double().T:
        rows = torch.stack([lower, upper])
        probabilities = torch.stack([rows, 1 - rows], dim=1)
        found = expected_calibration_error(
            probabilities, torch.tensor([0, 1]), bins
        )
        assert found == pytest.approx(0.5)


def test_calibration_batch_by_batch():
    probabilities = torch.randn(200, 5).softmax(dim=1)
    labels = torch.randint(5, (200,))
    error = CalibrationError()
    for rows in ((0, 3), (3, 150), (150, 200)):
        error.update(probabilities[slice(*rows)], labels[slice(*rows)])
    whole = expected_calibration_error(probabilities, labels)
    assert error.compute() == pytest.approx(whole, abs=1e-12)
    right = probabilities.argmax(dim=1) == labels
    assert error.accuracy == pytest.approx(right.double().mean().item())


@pytest.mark.parametrize('right', [True, False])
def test_extremes(right):
    labels = torch.arange(4)
    probabilities = torch.eye(4)[labels if right else labels.flip(0)]
    assert expected_calibration_error(probabilities, labels) == 1 - right


def test_without_samples():
    with pytest.raises(ValueError, match='no samples'):
        LinearCKA().compute()
    with pytest.raises(ValueError, match='no samples'):
        CalibrationError().compute()
    with pytest.raises(ValueError, match='bins=0'):
        CalibrationError(0)
