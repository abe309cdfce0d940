"""Memory that a process frees stays its own, where tensors live in it."""

import ctypes

import torch

#: Parameters of ``mallopt``, from glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Tell glibc not to give freed memory back to the system.

    By default, the large blocks of a training step go back when they are
    freed, and the system has to fill their pages with zeros when the next
    layer asks for memory. It is for a process that trains on a CPU, since
    its memory stays at its peak; on a GPU, PyTorch keeps the memory itself.

    Returns:
        bool: Whether it was done: not with a GPU, nor another C library.
    """
    if torch.cuda.is_available():
        return False
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is None:
        return False
    # Never trim; and no block of its own for what is large, which would be
    # returned as a whole.
    return all((mallopt(M_TRIM_THRESHOLD, -1), mallopt(M_MMAP_MAX, 0)))
