"""Hooks and the optimizer-wrapper constructor."""

from .checkpoint_hook import CheckpointHook
from .distill_hook import DistillHook
from .optim_wrapper_constructor import OptimWrapperConstructor

__all__ = ['CheckpointHook', 'DistillHook', 'OptimWrapperConstructor']
