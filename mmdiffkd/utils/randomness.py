"""Seeds of random streams; saving and isolating the global generators."""

import hashlib
import random
from collections.abc import Iterator, Mapping
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


def random_state() -> dict[str, object]:
    """Where this process's generators are, as tensors and plain numbers.

    Returns:
        dict[str, object]: The state of torch's generator on the CPU and on
        the current CUDA device (None if CUDA is not in use), of NumPy's and
        of Python's, for :func:`set_random_state`.
    """
    name, keys, *rest = np.random.get_state()
    used = torch.cuda.is_available() and torch.cuda.is_initialized()
    return {
        'torch': torch.get_rng_state(),
        'cuda': torch.cuda.get_rng_state() if used else None,
        # Tensors of uint32 cannot be sent between processes.
        'numpy': (name, torch.from_numpy(keys.astype(np.int64)), *rest),
        'python': random.getstate(),
    }


def set_random_state(state: Mapping[str, object]) -> None:
    """Bring this process's generators to where they were.

    Args:
        state (Mapping[str, object]): What :func:`random_state` returned, its
            tensors on any device.
    """
    torch.set_rng_state(state['torch'].cpu())
    if state['cuda'] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())
    name, keys, *rest = state['numpy']
    keys = keys.cpu().numpy().astype(np.uint32)
    np.random.set_state((name, keys, *rest))
    random.setstate(state['python'])


def seed_generators(seed: int) -> None:
    """Seed the CPU's generators: torch's, NumPy's and Python's.

    Those of CUDA are left as they are.

    Args:
        seed (int): The seed, of 63 bits at most.
    """
    random.seed(seed)
    np.random.seed([seed & 0xFFFFFFFF, seed >> 32])
    torch.default_generator.manual_seed(seed)
