"""A data set whose samples are loaded once and kept in memory."""

import random
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from mmengine.registry import DATASETS as MMENGINE_DATASETS

from mmdiffkd.registry import DATASETS


@DATASETS.register_module()
class CachedDataset:
    """A data set that loads each sample once and keeps it in memory.

    Each access gives a copy of what the whole pipeline made of the sample.
    So the pipeline may not draw random numbers. All other attributes are
    those of the inner data set.

    A worker process of a data loader has a cache of its own: use
    ``num_workers=0``, or ``persistent_workers=True`` and memory for each.

    Args:
        dataset (dict or Dataset): The inner data set, or its config.
    """

    def __init__(self, dataset: Any) -> None:
        if isinstance(dataset, dict):
            dataset = MMENGINE_DATASETS.build(dataset)
        self.dataset = dataset
        self._samples: dict[int, dict] = {}

    def __getitem__(self, index: int) -> dict:
        """A copy of a sample.

        Raises:
            ValueError: If the pipeline has drawn random numbers.
        """
        if index not in self._samples:
            before = _streams()
            sample = self.dataset[index]
            if _streams() != before:
                raise ValueError(
                    f'the pipeline of {type(self.dataset).__name__} draws '
                    'random numbers, so that a CachedDataset would repeat '
                    'the first draw in each epoch. Take the random '
                    'transforms out of `dataset.dataset.pipeline`, or use '
                    'the data set without CachedDataset.'
                )
            self._samples[index] = sample
        return deepcopy(self._samples[index])

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or name == 'dataset':
            raise AttributeError(name)
        return getattr(self.dataset, name)


def _streams() -> tuple:
    """Where the generators that a transform may draw from are."""
    name, keys, *rest = np.random.get_state()
    torch_state = torch.get_rng_state().numpy().tobytes()
    return random.getstate(), keys.tobytes(), *rest, torch_state
