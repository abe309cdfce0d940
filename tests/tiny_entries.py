"""Entries of `distill` on tensors of a few numbers, without networks."""

import torch

from mmdiffkd.models.distillers import Entry
from mmdiffkd.models.distillers.build import build_entry
from mmdiffkd.models.distillers.spec import read_entry

MAP_S, MAP_T = torch.Size((2, 4, 8, 8)), torch.Size((2, 6, 8, 8))
VECTOR = torch.Size((2, 5))


def entry(
    students=(MAP_S,), teachers=(MAP_T,), meta_supply=None, **changes
) -> Entry:
    """A projection and an MSE, unless told otherwise."""
    settings = dict(
        at='backbone[-1]',
        neck=dict(type='ProjectionNeck'),
        loss=dict(type='MSELoss'),
    )
    spec = read_entry('feature', {**settings, **changes})
    return build_entry(
        'feature', spec, students, teachers, (32, 32), meta_supply or {}
    )


def compare(made: Entry, batch=3, seed=(1, 0, 0)) -> tuple[dict, dict]:
    """Losses and metrics of random tensors of the entry's shapes."""
    tensors = [
        [torch.rand(batch, *shapes[i][1:]) for shapes in made.shapes]
        for i in (0, 1)
    ]
    for tensor in tensors[0]:
        tensor.requires_grad_()
    return made(*tensors, (32, 32), {}, seed)
