"""Distillation necks: between a student's tensor and its teacher's."""

from .aligned import Aligned
from .diffkd import DiffKDNeck
from .projection import ProjectionNeck

__all__ = ['Aligned', 'DiffKDNeck', 'ProjectionNeck']
