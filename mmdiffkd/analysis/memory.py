"""How much memory a call needs."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile


def peak_memory(
    function: Callable[[], object], device: str | torch.device = 'cpu'
) -> int:
    """The most bytes that a call has in use at a time.

    What is allocated when the call begins does not count. On the CPU every
    allocation of PyTorch's is seen, also those inside its operators and in
    compiled code, but none of NumPy's or Python's. On CUDA it is what
    PyTorch's caching allocator has handed out.

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
    # `acc_events` spares a warning about a second cycle, which there is not.
    with profile(
        activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True
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


def kept_for_backward(
    function: Callable[[], object], leaves: Sequence[Tensor] = ()
) -> int:
    """How many bytes a call keeps from its forward to its backward pass.

    Args:
        function (Callable): Runs both passes.
        leaves (Sequence[Tensor]): Tensors that do not count. Their gradients
            are dropped afterwards. Defaults to ().
    """
    kept: dict[int, int] = {}
    own = {leaf.untyped_storage().data_ptr() for leaf in leaves}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        function()
    for leaf in leaves:
        leaf.grad = None
    return sum(kept.values())
