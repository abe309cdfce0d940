"""Run safety for MMEngine: resuming, checkpoint files, losses, sharding."""

from .checkpoints import CheckpointHook
from .nonfinite import NonFiniteHook, NonFiniteLoss
from .sharding import FSDPStrategy

__all__ = ['CheckpointHook', 'FSDPStrategy', 'NonFiniteHook', 'NonFiniteLoss']
