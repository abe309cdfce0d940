"""The distiller: the only place that knows OpenMMLab models."""

from .distiller import Distiller
from .entry import Entry
from .spec import EntrySpec, ScheduleSpec, TeacherSpec
from .taps import Tap, Taps
from .teacher import FrozenTeacher

__all__ = [
    'Distiller',
    'Entry',
    'EntrySpec',
    'FrozenTeacher',
    'ScheduleSpec',
    'Tap',
    'Taps',
    'TeacherSpec',
]
