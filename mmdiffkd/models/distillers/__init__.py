"""The distiller: the only place that knows OpenMMLab models."""

from .distillation import Distillation, Schedule
from .distiller import Distiller
from .taps import Tap, Taps
from .teacher import FrozenTeacher

__all__ = [
    'Distillation',
    'Distiller',
    'FrozenTeacher',
    'Schedule',
    'Tap',
    'Taps',
]
