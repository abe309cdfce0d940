"""Distances between a student's and a teacher's tensor.

Every loss of this folder's modules can be imported from here.
"""

from ..part import classes_of
from .base import DistillLoss

_losses = classes_of(__name__, DistillLoss)
globals().update(_losses)
__all__ = ['DistillLoss', *_losses]
