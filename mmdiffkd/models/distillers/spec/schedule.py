"""The keys of a schedule."""

from .base import Spec, field


class ScheduleSpec(Spec):
    """How the weight of an entry or of the task changes over a run."""

    warmup: int = field(
        'Over how many epochs (or iterations) the weight grows linearly; the '
        'n-th, counted from 1, has the factor min(n / warmup, 1). 0: none.',
        'Use a number of epochs (or iterations), 0 or more.',
        0,
        ge=0,
    )
    stop: int | None = field(
        'After how many epochs (or iterations) the weight is 0. None: never.',
        'Use a number of epochs (or iterations), 0 or more.',
        None,
        ge=0,
    )
    by_epoch: bool = field(
        'Count epochs rather than iterations.', 'Use True or False.', True
    )

    @property
    def constant(self) -> bool:
        """Whether the factor is 1 all the time."""
        return self.warmup <= 1 and self.stop is None

    def factor(self, epoch: int, iteration: int) -> float:
        """The factor at an epoch and iteration, both counted from 0."""
        done = epoch if self.by_epoch else iteration
        if self.stop is not None and done >= self.stop:
            return 0.0
        return min((done + 1) / self.warmup, 1.0) if self.warmup else 1.0
