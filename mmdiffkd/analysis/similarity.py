"""How alike two representations are."""

import math

import torch
from torch import Tensor


class LinearCKA:
    """Linear centred kernel alignment of two features, batch by batch.

    ``|Yc' Xc|^2 / (|Xc' Xc| |Yc' Yc|)`` in Frobenius norms, with columns
    centred over all samples: 1 for features that a rotation and one scale
    turn into each other, near 0 for unrelated ones. Few samples for many
    channels raise it. One float64 matrix of C1 + C2 rows and columns is kept.

    Source: Kornblith et al., "Similarity of Neural Network Representations
    Revisited" (2019), Eq. (4) with linear kernels.
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean: Tensor | float = 0.0
        self._scatter: Tensor | float = 0.0
        self._channels = 0

    def update(self, x: Tensor, y: Tensor) -> None:
        """Take in features (N, C1) and (N, C2) of the same samples.

        Raises:
            ValueError: If they have other shapes.
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
        """The alignment so far, from 0 to 1; NaN if a feature is constant.

        A feature is constant if its samples are within 1e-12 of their mean,
        since rounding may keep equal numbers apart from it.

        Raises:
            ValueError: Without any sample.
        """
        if self._count == 0:
            raise ValueError('there are no samples: call update first')
        x, y = slice(self._channels), slice(self._channels, None)
        for columns in (x, y):
            spread = self._scatter[columns, columns].trace()
            size = self._count * self._mean[columns].square().sum()
            if spread <= 1e-24 * size:
                return math.nan
        within_x, within_y, between = (
            self._scatter[rows, columns].norm()
            for rows, columns in ((x, x), (y, y), (x, y))
        )
        return (between**2 / (within_x * within_y)).item()


def linear_cka(x: Tensor, y: Tensor) -> float:
    """:class:`LinearCKA` of features (N, C1) and (N, C2)."""
    alignment = LinearCKA()
    alignment.update(x, y)
    return alignment.compute()
