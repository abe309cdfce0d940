import pytest
import torch

from mmdiffkd.analysis.calibration import CalibrationError


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def expected_calibration_error(probabilities, labels, bins=15):
    error = CalibrationError(bins)
    error.update(probabilities, labels)
    return error.compute()['calibration_error']


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
    found = error.compute()
    assert found['calibration_error'] == pytest.approx(whole, abs=1e-12)
    right = (probabilities.argmax(dim=1) == labels).double()
    assert found['accuracy'] == pytest.approx(100 * right.mean().item())


@pytest.mark.parametrize('right', [True, False])
def test_extremes(right):
    labels = torch.arange(4)
    probabilities = torch.eye(4)[labels if right else labels.flip(0)]
    assert expected_calibration_error(probabilities, labels) == 1 - right


def test_without_samples():
    with pytest.raises(ValueError, match='no samples'):
        CalibrationError().compute()
    with pytest.raises(ValueError, match='bins=0'):
        CalibrationError(0)
