"""Finds, on a CPU, what would make a GPU wait for the host."""

from collections.abc import Callable

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# Operators whose result, or the size of whose result, the host has to read.
READING = {
    'aten::_local_scalar_dense': 'the value of a tensor (.item(), if, float)',
    'aten::is_nonzero': 'the truth of a tensor',
    'aten::equal': 'whether two tensors are equal',
    'aten::allclose': 'whether two tensors are close',
    'aten::nonzero': 'the number of values that are not zero',
    'aten::masked_select': 'the size of a mask',
    'aten::repeat_interleave': 'the sum of the repeats',
    'aten::bincount': 'the largest value',
    'aten::histc': 'the smallest and largest value',
    'aten::_unique2': 'the number of values',
    'aten::unique_dim': 'the number of values',
    'aten::unique_consecutive': 'the number of values',
    # `torch.tensor` of Python numbers: on a GPU, a copy that waits.
    'aten::lift_fresh': 'Python numbers that become a tensor',
}
# With a boolean mask among the indices these begin with `nonzero`.
INDEXING = {'aten::index', 'aten::index_put', 'aten::_index_put_impl'}


class NoSynchronisation(TorchDispatchMode):
    """Raises where the host would read what a device computes.

    Switched on around a forward and a backward pass. A copy to the CPU, and
    `.tolist()` or `.numpy()`, are no operators on tensors that are there
    already: a pass on the meta device finds these, since a meta tensor has
    nothing that could be read. `F.one_hot` reads on a CPU alone, to check its
    input, and is found all the same.
    """

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        name = operator._schema.name
        read = READING.get(name)
        if name.rstrip('_') in INDEXING and any(
            index is not None and index.dtype in (torch.bool, torch.uint8)
            for index in args[1]
        ):
            read = 'the size of a mask'
        if read:
            raise AssertionError(f'{operator} makes the host read {read}')
        return operator(*args, **(kwargs or {}))


def check_on_a_gpu(step: Callable[[], object]) -> None:
    """Run a step twice; in the second one a wait for the GPU is an error."""
    step()
    torch.cuda.set_sync_debug_mode('error')
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode('default')
