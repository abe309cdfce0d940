"""Samples whose random numbers depend on their place in the run alone.

MMEngine seeds a worker process once, so that what a sample draws depends on
what the worker has loaded before. Here each sample has a stream of its own,
seeded by its place in the run. So a resumed run draws what the uninterrupted
run would have drawn, with any number of workers.
"""

from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any, NamedTuple

import torch
from mmengine.dist import get_rank
from mmengine.runner import BaseLoop, EpochBasedTrainLoop
from torch.utils.data import IterableDataset, get_worker_info

from mmdiffkd.utils.randomness import (
    derive_seed,
    isolated_randomness,
    seed_generators,
)


class Visit(NamedTuple):
    """A place in the run, and the sample that is due there.

    Attributes:
        rank (int): The process.
        epoch (int): The pass over the data.
        position (int): How many samples of that pass came before.
        index (object): What the sampler asks the data set for.
    """

    rank: int
    epoch: int
    position: int
    index: Any


class SeededDataset:
    """A data set in which every visit draws from a stream of its own.

    The process's own streams do not move. Attributes are the data set's,
    also when they are set: hooks assign ``pipeline``, for instance.

    Args:
        dataset (Dataset): The data set.
        seed (int): The run's.
    """

    # A data set's own batched access would be given visits.
    __getitems__ = None

    def __init__(self, dataset: Any, seed: int) -> None:
        vars(self).update(_inner=dataset, _seed=seed)

    def __getitem__(self, item: Any) -> Any:
        """A sample; by its bare index, it draws from the process's stream."""
        if not isinstance(item, Visit):
            return self._inner[item]
        seed = derive_seed(self._seed, *item)
        if get_worker_info() is not None:
            # Nobody else draws in a worker process.
            seed_generators(seed)
            return self._inner[item.index]
        with isolated_randomness():
            seed_generators(seed)
            return self._inner[item.index]

    def __len__(self) -> int:
        return len(self._inner)

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__'):
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._inner, name, value)

    def __reduce__(self) -> tuple:
        return type(self), (self._inner, self._seed)


class VisitBatches:
    """A batch sampler whose samples carry their place in the run.

    Args:
        batches (Iterable): A batch sampler; its attributes are found here.
        endless (bool): Start the next epoch by itself, as a loop that counts
            iterations wants it.
    """

    def __init__(self, batches: Iterable, endless: bool) -> None:
        self.batches = batches
        self.endless = endless
        self.epoch = 0
        self.skipped = 0

    def skip(self, batches: int) -> None:
        """Begin after so many batches, of which nothing is loaded."""
        self.skipped = batches

    def __iter__(self) -> Iterator[list[Visit]]:
        rank = get_rank()
        left = self.skipped
        sampler = getattr(self.batches, 'sampler', None)
        for epoch in count() if self.endless else [self.epoch]:
            if self.endless and hasattr(sampler, 'set_epoch'):
                sampler.set_epoch(epoch)
            position = 0
            for batch in self.batches:
                if left:
                    left -= 1
                else:
                    yield [
                        Visit(rank, epoch, position + i, index)
                        for i, index in enumerate(batch)
                    ]
                position += len(batch)

    def __len__(self) -> int:
        return len(self.batches)

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__'):
            raise AttributeError(name)
        return getattr(self.batches, name)


def seed_samples(loop: BaseLoop, seed: int) -> VisitBatches:
    """Seed every sample of a training loop by its place in the run.

    To be called before the loop's data loader is iterated.

    Args:
        loop (BaseLoop): The training loop.
        seed (int): The run's seed.

    Returns:
        VisitBatches: The loader's batch sampler from now on, whose ``epoch``
        has to be told in a loop that counts epochs.

    Raises:
        ValueError: If the data have no order that could be repeated.
    """
    loader = loop.dataloader
    if loader.batch_sampler is None or isinstance(
        loader.dataset, IterableDataset
    ):
        raise ValueError(
            '`default_hooks.checkpoint.exact_resume` is True, but '
            '`train_dataloader` has no batch sampler, so that the order of '
            'the samples is not known. Use a data set with indices and give '
            '`batch_size`, or leave `exact_resume` out.'
        )
    batches = VisitBatches(
        loader.batch_sampler,
        endless=not isinstance(loop, EpochBasedTrainLoop),
    )
    # A loader refuses to have them set, since workers that run already would
    # not notice. No worker runs yet.
    vars(loader).update(
        dataset=SeededDataset(loader.dataset, seed), batch_sampler=batches
    )
    # Starting to iterate draws a number, which must not come from a stream
    # that the checkpoint holds: persistent workers start but once.
    loader.generator = torch.Generator().manual_seed(derive_seed(seed))
    iterator = getattr(loop, 'dataloader_iterator', None)
    if iterator is not None:
        # Some versions of MMEngine have it running since the loop was built.
        loop.dataloader_iterator = type(iterator)(loader)
    return batches
