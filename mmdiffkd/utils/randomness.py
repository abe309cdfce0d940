"""Ownership of randomness: who draws, from which stream."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def isolated_randomness() -> Iterator[None]:
    """Run a block without moving torch's, NumPy's and Python's generators.

    Whatever the block draws, the code after it sees the streams as they were
    before it, on the CPU and on every CUDA device in use. Training with
    distillation therefore draws the same numbers as training without.
    """
    states = random.getstate(), np.random.get_state()
    devices = []
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        devices = list(range(torch.cuda.device_count()))
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part and on their order.

    Args:
        parts (int or str): What tells one stream from another, for instance
            the run's seed, the entry's name, the level, rank and step.

    Returns:
        int: The seed, for ``torch.Generator.manual_seed``.
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, 'little') >> 1
