"""Measurements of what runs."""

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile


def peak_memory(
    function: Callable[[], object], device: str | torch.device = 'cpu'
) -> int:
    """The most memory that a call has in use at a time.

    What is allocated when the call begins does not count. On the CPU every
    allocation of PyTorch's is seen, also those inside its operators and in
    compiled code, but none of NumPy's or Python's. On CUDA it is what
    PyTorch's caching allocator has handed out.

    Args:
        function (Callable): What to call, without arguments.
        device (str | torch.device): The device whose memory is measured.
            Defaults to 'cpu'.

    Returns:
        int: Bytes.

    Raises:
        ValueError: If the device is neither the CPU nor CUDA.
    """
    device = torch.device(device)
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if device.type != 'cpu':
        raise ValueError(f'device={str(device)!r} is neither cpu nor cuda')
    with profile(
        activities=[ProfilerActivity.CPU], profile_memory=True
    ) as profiler:
        function()
    changes = sorted(
        (event.start_ns(), event.nbytes())
        for event in profiler.profiler.kineto_results.events()
        if event.name() == '[memory]'
        and event.device_type() == torch.autograd.DeviceType.CPU
    )
    in_use = peak = 0
    for _, change in changes:
        in_use += change
        peak = max(peak, in_use)
    return peak
