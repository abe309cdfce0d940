"""The student's own task: its losses, and training without them."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .entry import Entry, touch
from .scheduled import Scheduled
from .spec import ScheduleSpec
from .tapped_network import TappedNetwork
from .trained import trained_parameters


class Task(Scheduled):
    """The weight of the student's own losses, and what it trains without.

    Args:
        student (nn.Module): The student.
        weight (float): ``task_weight`` of the distiller.
        schedule (ScheduleSpec, optional): Its ``task_schedule``. Defaults to
            None.
    """

    def __init__(
        self,
        student: nn.Module,
        weight: float,
        schedule: ScheduleSpec | None = None,
    ) -> None:
        super().__init__(weight, schedule)
        self._student = student
        #: The names of the parameters that each entry trains.
        self._trained_by: dict[str, set[str]] = {}

    def prepare(
        self,
        entries: Mapping[str, Entry],
        tapped: TappedNetwork,
    ) -> None:
        """See that entries do without the task, and what each trains.

        Args:
            entries (Mapping[str, Entry]): The entries by name.
            tapped (TappedNetwork): The student with its taps.

        Raises:
            ValueError: If an entry asks for boxes that are sampled for the
                task.
        """
        if self.always_active:
            return
        key = '`model.task_weight` is 0'
        if self.weight != 0:
            part = 'start' if self.schedule.start else 'stop'
            value = getattr(self.schedule, part)
            key = f'`model.task_schedule.{part}` is {value}'
        for name, entry in entries.items():
            if entry.box_heads is not None and entry.weight != 0:
                raise ValueError(
                    f'`distill.{name}` reads boxes that the RoI head of the '
                    f'student samples for its own losses, but {key}. Tap '
                    "backbone or neck, or leave the student's losses on."
                )
            self._trained_by[name] = trained_parameters(
                tapped, entry.student_at
            )

    def weigh(self, losses: dict) -> dict:
        """The student's losses, times the weight; metrics stay."""
        if self.scale == 1:
            return losses
        # What MMEngine takes for a loss.
        return {
            name: _scaled(value, self.scale) if 'loss' in name else value
            for name, value in losses.items()
        }

    def untrained(
        self, entries: Mapping[str, Entry]
    ) -> dict[str, nn.Parameter]:
        """The student's parameters that nothing trains now, by name.

        If the weight is 0, these are those that no active entry reaches.

        Args:
            entries (Mapping[str, Entry]): The entries by name.
        """
        if self.active:
            return {}
        trained = {
            parameter
            for name, entry in entries.items()
            if entry.active
            for parameter in self._trained_by[name]
        }
        return {
            name: parameter
            for name, parameter in self._student.named_parameters()
            if parameter.requires_grad and name not in trained
        }

    @torch.compiler.disable
    def idle(self, entries: Mapping[str, Entry]) -> dict[str, Tensor]:
        """A loss of 0 that touches what is not trained, as DDP wants.

        Args:
            entries (Mapping[str, Entry]): The entries by name.
        """
        touched = touch(self.untrained(entries).values())
        return {'loss_task': sum(touched)} if touched else {}


def _scaled(loss: Tensor | list[Tensor], scale: float) -> object:
    if isinstance(loss, Tensor):
        return loss * scale
    return [each * scale for each in loss]
