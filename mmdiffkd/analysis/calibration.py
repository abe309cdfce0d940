"""How well the confidence of a classifier matches its accuracy."""

import torch
from torch import Tensor


class CalibrationError:
    """The expected calibration error, batch by batch.

    The mean difference between confidence (the largest probability) and
    accuracy over bins of equal width of the confidence, each weighted by its
    samples. A bin holds its upper edge.

    Args:
        bins (int): Number of bins, at least 1. Defaults to 15.

    Source: Guo et al., "On Calibration of Modern Neural Networks" (2017),
    Eq. (3).
    """

    def __init__(self, bins: int = 15) -> None:
        if bins < 1:
            raise ValueError(f'bins={bins} must be at least 1')
        self.bins = bins
        # The numbers nearest to 1 / bins, 2 / bins, ..., as people write them.
        self._edges = torch.arange(1, bins, dtype=torch.float64) / bins
        self._count = 0
        self._right: Tensor | int = 0
        self._surplus: Tensor | float = 0.0

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        """Take in a batch: probabilities (N, classes), integers (N,)."""
        confidence, prediction = probabilities.detach().double().max(dim=1)
        right = (prediction == labels).double()
        edges = self._edges.to(confidence.device)
        self._surplus = self._surplus + torch.bincount(
            torch.bucketize(confidence, edges),
            weights=right - confidence,
            minlength=self.bins,
        )
        self._right = self._right + right.sum()
        self._count += len(labels)

    def compute(self) -> dict[str, float]:
        """``accuracy`` in percent, ``calibration_error`` from 0 to 1.

        Raises:
            ValueError: Without any sample.
        """
        if self._count == 0:
            raise ValueError('there are no samples: call update first')
        error = self._surplus.abs().sum() / self._count
        return {
            'accuracy': 100 * (self._right / self._count).item(),
            'calibration_error': error.item(),
        }
