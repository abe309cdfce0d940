"""Timing what runs, with its memory and its arithmetic."""

import contextlib
import gc
import platform
import re
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mmdiffkd.utils.progress import track

from .macs import count_macs
from .memory import peak_memory

WARM_UP = 2
MIB = 2**20


@dataclass
class Part:
    """Something to time; gradients of ``leaves`` are dropped before a run."""

    name: str
    run: Callable[[], object]
    leaves: Sequence[Tensor] = ()

    def reset(self) -> None:
        """Forget the gradients of the run before."""
        for leaf in self.leaves:
            leaf.grad = None


@dataclass
class Settings:
    """How everything is measured.

    Attributes:
        device (torch.device): Where.
        repetitions (int): How often. Defaults to 10.
        amp (torch.dtype, optional): Type of autocast. Defaults to None:
            float32.
        compile (bool): Whether to compile what is ours. Defaults to False.
        reference (type, optional): The released DiffKD module, which is
            measured beside ours. Defaults to None.
        backend (str): What compiles. Defaults to 'inductor'.
    """

    device: torch.device
    repetitions: int = 10
    amp: torch.dtype | None = None
    compile: bool = False
    reference: type[nn.Module] | None = None
    backend: str = 'inductor'

    def precision(self) -> contextlib.AbstractContextManager:
        """Autocast, or nothing."""
        if self.amp is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.amp)

    def compiled(self, function: Callable) -> Callable:
        """A function, compiled if these settings say so."""
        if not self.compile:
            return function
        return torch.compile(function, backend=self.backend)

    def training(
        self,
        name: str,
        forward: Callable[[], Tensor],
        module: nn.Module,
        inputs: Sequence[Tensor] = (),
    ) -> Part:
        """Forward, under autocast, and backward of what gives a loss.

        The parameters of ``module`` and the ``inputs`` get gradients.
        """

        def run() -> None:
            with self.precision():
                loss = forward()
            loss.backward()

        return Part(name, run, [*module.parameters(), *inputs])

    def seconds(self, part: Part) -> float:
        """Time one run, on the device's own clock."""
        part.reset()
        if self.device.type != 'cuda':
            start = time.perf_counter()
            part.run()
            return time.perf_counter() - start
        events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        torch.cuda.synchronize()
        events[0].record()
        part.run()
        events[1].record()
        torch.cuda.synchronize()
        return events[0].elapsed_time(events[1]) / 1e3


def measure(parts: Sequence[Part], settings: Settings) -> list[dict]:
    """Time parts in turn, then measure the memory and the MACs of each.

    They run in turn so that a machine that slows down slows all of them
    down.

    Returns:
        list[dict]: A row for each part: ``part``, ``ms`` (median),
        ``ms_low`` and ``ms_high`` (quartiles), ``page_faults`` (median; pages
        of memory that the system had to provide), ``peak_mib``, ``gmacs``,
        and ``all_ms``, the time of each repetition.
    """
    for _ in range(WARM_UP):
        for part in parts:
            part.reset()
            part.run()
    times: dict[str, list[float]] = {part.name: [] for part in parts}
    faults: dict[str, list[int]] = {part.name: [] for part in parts}
    gc.collect()
    gc.disable()
    try:
        for _ in track(range(settings.repetitions), 'Timing', 'rounds'):
            for part in parts:
                before = _page_faults()
                times[part.name].append(1e3 * settings.seconds(part))
                faults[part.name].append(_page_faults() - before)
    finally:
        gc.enable()
    rows = []
    for part in parts:
        part.reset()
        peak = peak_memory(part.run, settings.device)
        part.reset()
        low, middle, high = np.quantile(times[part.name], [0.25, 0.5, 0.75])
        rows.append(
            {
                'part': part.name,
                'ms': float(middle),
                'ms_low': float(low),
                'ms_high': float(high),
                'page_faults': int(np.median(faults[part.name])),
                'peak_mib': peak / MIB,
                'gmacs': _gmacs(part),
                'all_ms': times[part.name],
            }
        )
        part.reset()
    return rows


def _page_faults() -> int:
    """Those of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _gmacs(part: Part) -> float:
    def run() -> None:
        with torch.enable_grad(), torch.compiler.set_stance('force_eager'):
            part.run()

    return count_macs(run, batch_size=1) / 1e9


def environment(settings: Settings) -> dict:
    """What the figures depend on besides the code, as JSON takes it."""
    if settings.device.type == 'cuda':
        device = torch.cuda.get_device_name(settings.device)
    else:
        device = f'{_processor()}, {torch.get_num_threads()} threads'
    return {
        'device': device,
        'torch': torch.__version__,
        'python': platform.python_version(),
        'amp': None if settings.amp is None else str(settings.amp),
        'compile': settings.compile,
        'repetitions': settings.repetitions,
    }


def _processor() -> str:
    """The name of the CPU."""
    facts = Path('/proc/cpuinfo')
    text = facts.read_text() if facts.is_file() else ''
    name = re.search(r'^model name\s*: (.+)', text, re.M)
    return name[1] if name else platform.processor() or platform.machine()
