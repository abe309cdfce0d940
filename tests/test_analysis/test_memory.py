import pytest
import torch

from mmdiffkd.analysis.memory import kept_for_backward, peak_memory

MEGABYTE = 2**20


def allocate(megabytes, device='cpu'):
    return torch.empty(megabytes * MEGABYTE, dtype=torch.uint8, device=device)


def one_after_another(device='cpu'):
    kept = allocate(3, device)
    for _ in range(5):
        allocate(4, device)
    kept = allocate(2, device)
    del kept


@pytest.mark.parametrize(
    'function, megabytes',
    [
        (lambda: None, 0),
        (lambda: allocate(8), 8),
        (lambda: (allocate(8), allocate(4)), 12),
        (one_after_another, 7),
    ],
)
def test_peak(function, megabytes):
    assert peak_memory(function) == megabytes * MEGABYTE


def test_sees_what_operators_allocate_and_what_backward_does():
    values = torch.ones(MEGABYTE // 4, requires_grad=True)

    def step():
        # Kept for the backward pass: exp's result; then its gradient.
        values.grad = None
        values.exp().sum().backward()

    assert MEGABYTE < peak_memory(step) <= 3.1 * MEGABYTE


def test_what_was_there_does_not_count():
    kept = [allocate(16)]

    def replace():
        kept.clear()
        kept.append(allocate(1))

    assert peak_memory(replace) <= MEGABYTE


def test_another_device():
    with pytest.raises(ValueError, match="'meta'"):
        peak_memory(lambda: None, 'meta')


def test_what_is_kept_for_the_backward_pass():
    weight = torch.ones(1000, requires_grad=True)
    seen = torch.ones(1000)

    def step():
        # exp keeps its result, twice the same one; seen is kept once.
        ((weight * seen).exp() * seen).sum().backward()

    assert kept_for_backward(step, [weight]) == 2 * 4000
    assert weight.grad is None


@pytest.mark.gpu
def test_peak_on_a_gpu():
    kept = allocate(16, 'cuda')
    peak = peak_memory(lambda: one_after_another('cuda'), kept.device)
    assert peak == 7 * MEGABYTE
