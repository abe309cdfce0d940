"""The keys of a distiller, of its teachers and of its entries, as data.

A config is read here and nowhere else: what comes out has been checked,
except for what depends on the networks. The fields' descriptions make the
reference pages.
"""

from .base import Spec
from .distiller import DistillerSpec
from .entry import EntrySpec, read_entries, read_entry
from .part import PartSpec
from .schedule import ScheduleSpec
from .teacher import ONLY_TEACHER, TeacherSpec, teacher_label

__all__ = [
    'ONLY_TEACHER',
    'DistillerSpec',
    'EntrySpec',
    'PartSpec',
    'ScheduleSpec',
    'Spec',
    'TeacherSpec',
    'read_entries',
    'read_entry',
    'teacher_label',
]
