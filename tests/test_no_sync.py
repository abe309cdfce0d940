import pytest
import torch
from no_sync import NoSynchronisation
from torch.nn import functional as F

VALUES = torch.tensor([3.0, 0.0, 2.0], requires_grad=True)
MASK = torch.tensor([True, False, True])
COUNTS = torch.tensor([1, 0, 2])


def assign_by_mask():
    torch.zeros(3)[MASK] = VALUES.detach()[:2]


@pytest.mark.parametrize(
    'reading',
    [
        lambda: VALUES.sum().item(),
        lambda: float(VALUES.sum()),
        lambda: 1 if VALUES.sum() > 0 else 2,
        lambda: VALUES[COUNTS[2]] if COUNTS.max() else None,
        lambda: range(COUNTS.sum()),
        lambda: VALUES[MASK],
        assign_by_mask,
        lambda: VALUES.masked_select(MASK),
        lambda: VALUES.nonzero(),
        lambda: torch.where(MASK),
        lambda: COUNTS.unique(),
        lambda: VALUES.repeat_interleave(COUNTS),
        lambda: F.one_hot(COUNTS),
        lambda: torch.bincount(COUNTS),
        lambda: torch.equal(MASK, ~MASK),
        lambda: VALUES.allclose(VALUES + 1),
        lambda: VALUES * torch.tensor([1.0, 2.0, 3.0]),
    ],
)
def test_finds(reading):
    reading()
    with NoSynchronisation(), pytest.raises(AssertionError, match='the host'):
        reading()


def test_finds_in_a_backward_pass():
    class Reading(torch.autograd.Function):
        @staticmethod
        def forward(ctx, values):
            return values.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * gradient.sum().item()

    with NoSynchronisation():
        total = Reading.apply(VALUES).sum()
        with pytest.raises(AssertionError, match='the host'):
            total.backward()


@pytest.mark.parametrize(
    'computing',
    [
        lambda: VALUES[COUNTS],
        lambda: VALUES[0] + VALUES[:, None].mean(0),
        lambda: torch.where(MASK, VALUES, 0.0),
        lambda: VALUES.masked_fill(MASK, 1.0),
        lambda: F.cross_entropy(VALUES[None], COUNTS[:1]),
        lambda: VALUES.softmax(0).clamp(min=0.1).log(),
        lambda: torch.full((3,), 2.0) + torch.arange(3),
    ],
)
def test_lets_pass(computing):
    with NoSynchronisation():
        result = computing()
        if result.requires_grad:
            result.sum().backward()
