"""Distances between what the student and the teacher say."""

from .kl_divergence import KLDivergence
from .mse import MSELoss

__all__ = ['KLDivergence', 'MSELoss']
