"""Distillation necks: between a student's tensor and its teacher's.

Every neck of this folder's modules can be imported from here.
"""

from ..part import classes_of
from .aligned import Aligned
from .base import DistillNeck

_necks = classes_of(__name__, DistillNeck)
globals().update(_necks)
__all__ = ['Aligned', 'DistillNeck', *_necks]
