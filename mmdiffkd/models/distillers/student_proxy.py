"""A model that stands for its student: what it lacks, the student has."""

from typing import Any

from mmengine.model import BaseModel
from torch import Tensor


class StudentProxy(BaseModel):
    """A model whose missing attributes are those of its student.

    They are read and set there. Attributes are set on the model itself until
    it has an attribute ``_is_built``.
    """

    def parse_losses(self, losses: dict) -> tuple[Tensor, dict]:
        """Add up what is a loss, as the student's class does."""
        if hasattr(self.student, 'parse_losses'):
            return self.student.parse_losses(losses)
        return super().parse_losses(losses)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            own = getattr(type(self), name, None)
            if isinstance(own, property):
                # It has failed, and says why if it is asked again.
                return own.fget(self)
            student = self.__dict__.get('_modules', {}).get('student')
            if student is None or name.startswith('_'):
                raise
            return getattr(student, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if self._is_of_the_student(name):
            setattr(self.student, name, value)
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if self._is_of_the_student(name):
            delattr(self.student, name)
        else:
            super().__delattr__(name)

    def _is_of_the_student(self, name: str) -> bool:
        """Whether the model lacks an attribute that the student has."""
        own = self.__dict__
        return (
            '_is_built' in own
            and not name.startswith('_')
            and not hasattr(type(self), name)
            and not any(
                name in names
                for names in (
                    own,
                    own['_modules'],
                    own['_parameters'],
                    own['_buffers'],
                )
            )
            and hasattr(self.student, name)
            # What is worked out by the student cannot be set there.
            and not isinstance(
                getattr(type(self.student), name, None), property
            )
        )
