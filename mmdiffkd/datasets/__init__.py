"""The embedded data set, and keeping a data set in memory."""

from .cached_dataset import CachedDataset

__all__ = ['CachedDataset']
