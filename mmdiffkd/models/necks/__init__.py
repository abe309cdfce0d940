"""Distillation necks: between a student's tensor and its teacher's."""

from .aligned import Aligned
from .class_columns import ClassColumnsNeck
from .diffkd import DiffKDNeck
from .diffkd_classifier import DiffKDClassifierNeck
from .dskd import DSKDNeck
from .fitnet import FitNetNeck
from .mgd import MGDNeck
from .projection import ProjectionNeck
from .projector_ensemble import ProjectorEnsembleNeck
from .reviewkd import ReviewKDNeck
from .vid import VIDNeck

__all__ = [
    'Aligned',
    'ClassColumnsNeck',
    'DSKDNeck',
    'DiffKDClassifierNeck',
    'DiffKDNeck',
    'FitNetNeck',
    'MGDNeck',
    'ProjectionNeck',
    'ProjectorEnsembleNeck',
    'ReviewKDNeck',
    'VIDNeck',
]
