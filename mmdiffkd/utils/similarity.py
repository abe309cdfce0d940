"""How alike two representations are, and how honest a confidence is."""

import math

import torch
from torch import Tensor


class LinearCKA:
    """Linear centred kernel alignment of two features, batch by batch.

    ``|Yc' Xc|^2 / (|Xc' Xc| |Yc' Yc|)`` in Frobenius norms, with columns
    centred over all samples: 1 for features that a rotation and one scale
    turn into each other, near 0 for unrelated ones. Few samples for many
    channels raise it. Kept is one matrix of C1 + C2 rows and columns, in
    float64.

    Source: Kornblith et al., "Similarity of Neural Network Representations
    Revisited" (2019), Eq. (4) with linear kernels.
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean: Tensor | float = 0.0
        self._scatter: Tensor | float = 0.0
        self._channels = 0

    def update(self, x: Tensor, y: Tensor) -> None:
        """Take in a batch.

        Args:
            x (Tensor): One network's features, (N, C1).
            y (Tensor): The other's for the same samples, (N, C2).

        Raises:
            ValueError: If they are no vectors of as many samples.
        """
        if x.dim() != 2 or y.dim() != 2 or len(x) != len(y):
            raise ValueError(
                f'features of shape {tuple(x.shape)} and {tuple(y.shape)}: '
                'give vectors (N, C1) and (N, C2) of the same samples'
            )
        if len(x) == 0:
            return
        both = torch.cat([x, y], dim=1).detach().double()
        mean = both.mean(dim=0)
        centred = both - mean
        total = self._count + len(both)
        # Chan et al. (1979): sums around the common mean from those around
        # each part's, without the difference of two large numbers.
        apart = mean - self._mean
        share = self._count * len(both) / total
        self._scatter = (
            self._scatter + centred.T @ centred + share * apart.outer(apart)
        )
        self._mean = self._mean + apart * len(both) / total
        self._count = total
        self._channels = x.shape[1]

    def compute(self) -> float:
        """The alignment so far, NaN if a feature is constant.

        That is if its samples are within 1e-12 of their mean, since rounding
        may keep equal numbers apart from it.

        Raises:
            ValueError: Without any sample.
        """
        if self._count == 0:
            raise ValueError('there are no samples: call update first')
        c = self._channels
        for columns in (slice(c), slice(c, None)):
            spread = self._scatter[columns, columns].trace()
            size = self._count * self._mean[columns].square().sum()
            if spread <= 1e-24 * size:
                return math.nan
        within_x, within_y, between = (
            self._scatter[rows, columns].norm()
            for rows, columns in (
                (slice(c), slice(c)),
                (slice(c, None), slice(c, None)),
                (slice(c), slice(c, None)),
            )
        )
        return (between**2 / (within_x * within_y)).item()


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Linear centred kernel alignment, see :class:`LinearCKA`.

    Args:
        x (Tensor): One network's features, (N, C1).
        y (Tensor): The other's for the same samples, (N, C2).

    Returns:
        float: From 0 to 1.
    """
    alignment = LinearCKA()
    alignment.update(x, y)
    return alignment.compute()


class CalibrationError:
    """The expected calibration error, batch by batch.

    The mean difference between confidence, the largest probability, and
    accuracy, over bins of equal width of the confidence, each weighted by
    its samples: 0 if of the predictions made with 80 % confidence 80 % are
    right. A bin holds its upper edge.

    Args:
        bins (int): Number of bins. Defaults to 15.

    Raises:
        ValueError: If ``bins`` is not positive.

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
        """Take in a batch.

        Args:
            probabilities (Tensor): (N, classes), rows that sum to 1.
            labels (Tensor): Integers (N,).
        """
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

    def compute(self) -> float:
        """The error so far, from 0 to 1.

        Raises:
            ValueError: Without any sample.
        """
        count = self._samples
        return (self._surplus.abs().sum() / count).item()

    @property
    def accuracy(self) -> float:
        """The share of right predictions so far, from 0 to 1.

        Raises:
            ValueError: Without any sample.
        """
        count = self._samples
        return (self._right / count).item()

    @property
    def _samples(self) -> int:
        if self._count == 0:
            raise ValueError('there are no samples: call update first')
        return self._count


def expected_calibration_error(
    probabilities: Tensor, labels: Tensor, bins: int = 15
) -> float:
    """The expected calibration error, see :class:`CalibrationError`.

    Args:
        probabilities (Tensor): (N, classes), rows that sum to 1.
        labels (Tensor): Integers (N,).
        bins (int): Number of bins of equal width. Defaults to 15.

    Returns:
        float: From 0 to 1.
    """
    error = CalibrationError(bins)
    error.update(probabilities, labels)
    return error.compute()
