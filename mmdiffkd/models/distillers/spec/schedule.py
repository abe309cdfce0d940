"""The keys of a schedule."""

from typing import Self

from pydantic import ValidationInfo, model_validator

from .base import Spec, field


class ScheduleSpec(Spec):
    """How the weight of an entry or of the task changes over a run."""

    start: int = field(
        'After how many epochs (or iterations) the weight is above 0.',
        'Use a number of epochs (or iterations), 0 or more.',
        0,
        ge=0,
    )
    warmup: int = field(
        'Over how many epochs (or iterations) after `start` the weight grows '
        'linearly; the n-th, counted from 1, has the factor '
        'min(n / warmup, 1). 0: none.',
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

    @model_validator(mode='after')
    def _check_order(self, info: ValidationInfo) -> Self:
        if self.start and self.stop is not None and self.stop <= self.start:
            key = info.context['key']
            raise ValueError(
                f'`{key}` has start={self.start} and stop={self.stop}, so '
                'that the weight is 0 all the time. `stop` counts from the '
                'beginning of the run: take a larger one.'
            )
        return self

    @property
    def constant(self) -> bool:
        """Whether the factor is 1 all the time."""
        return self.warmup <= 1 and self.never_off

    @property
    def never_off(self) -> bool:
        """Whether the factor is above 0 all the time."""
        return self.start == 0 and self.stop is None

    def factor(self, epoch: int, iteration: int) -> float:
        """The factor at an epoch and iteration, both counted from 0."""
        done = epoch if self.by_epoch else iteration
        if self.stop is not None and done >= self.stop:
            return 0.0
        done -= self.start
        if done < 0:
            return 0.0
        return min((done + 1) / self.warmup, 1.0) if self.warmup else 1.0
