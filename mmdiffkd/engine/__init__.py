"""Hooks and the optimizer-wrapper constructor."""

from .checkpoint_hook import CheckpointHook
from .distill_hook import DistillHook
from .fsdp_strategy import FSDPStrategy
from .nonfinite_hook import NonFiniteHook
from .optim_wrapper_constructor import OptimWrapperConstructor

__all__ = [
    'CheckpointHook',
    'DistillHook',
    'FSDPStrategy',
    'NonFiniteHook',
    'OptimWrapperConstructor',
]
