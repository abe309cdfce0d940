"""Run safety for MMEngine: files, resuming, losses, sharding."""

from .checkpoints import CheckpointHook
from .missing_weights import MissingWeightsHook
from .nonfinite import NonFiniteHook, NonFiniteLoss
from .sharding import FSDPStrategy

__all__ = [
    'CheckpointHook',
    'FSDPStrategy',
    'MissingWeightsHook',
    'NonFiniteHook',
    'NonFiniteLoss',
]
