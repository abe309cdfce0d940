"""A weight that a schedule may change over a run."""

from collections.abc import Mapping

from .spec import ScheduleSpec


class Scheduled:
    """The weight of an entry, or of the student's own losses.

    Attributes:
        factor (float): The schedule's factor now.

    Args:
        weight (float): The weight, without the schedule's factor.
        schedule (ScheduleSpec, optional): How it changes over a run.
            Defaults to None: not at all.
    """

    def __init__(
        self, weight: float, schedule: ScheduleSpec | None = None
    ) -> None:
        self.weight = weight
        self.schedule = schedule or ScheduleSpec()
        self.factor = self.schedule.factor(0, 0)

    @property
    def scale(self) -> float:
        """The weight now."""
        return self.weight * self.factor

    @property
    def active(self) -> bool:
        """Whether the weight is other than 0 now."""
        return self.scale != 0

    @property
    def always_active(self) -> bool:
        """Whether the weight is other than 0 all the time."""
        return self.weight != 0 and self.schedule.never_off

    @property
    def ever_active(self) -> bool:
        """Whether the weight is other than 0 at some time of a long run."""
        return self.weight != 0 and self.schedule.stop != 0

    def scale_at(self, epoch: int, iteration: int) -> float:
        """The weight at an epoch and iteration, both counted from 0."""
        return self.weight * self.schedule.factor(epoch, iteration)

    def set_progress(self, epoch: int, iteration: int) -> None:
        """Bring the weight up to date, both counted from 0."""
        self.factor = self.schedule.factor(epoch, iteration)


def check_trains(
    scheduled: Mapping[str, Scheduled], epoch: int, iteration: int
) -> None:
    """See that something is trained at a point of a run.

    Args:
        scheduled (Mapping[str, Scheduled]): The weights of the task and of
            all entries, by the key of the schedule.
        epoch (int): The epoch, counted from 0.
        iteration (int): The iteration, counted from 0.

    Raises:
        ValueError: If all weights are 0.
    """
    if any(w.scale_at(epoch, iteration) for w in scheduled.values()):
        return
    when, cure = '', 'Give one of them a weight above 0.'
    if not all(w.schedule.constant for w in scheduled.values()):
        when = f' in epoch {epoch + 1} (iteration {iteration + 1})'
        cure += (
            ' The `stop` of a schedule must not come before the end, nor may '
            'all of them `start` later.'
        )
    raise ValueError(
        '`model.task_weight` and the weights of all entries of `distill` '
        f'are 0{when}, so that nothing is trained. {cure}'
    )
