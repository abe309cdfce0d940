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


def compare(
    made: Entry, batch=3, seed=(1, 0, 0), same=False, **supply
) -> tuple[dict, dict]:
    """Losses and metrics of random tensors of the entry's shapes.

    Args:
        made (Entry): The entry.
        batch (int): Samples. Defaults to 3.
        seed (tuple[int, ...]): Of what the entry draws. Defaults to
            (1, 0, 0).
        same (bool): Whether both networks have the student's tensors.
            Defaults to False.
        **supply: What neck and loss may ask for, by name.
    """
    tensors = [
        [torch.rand(batch, *shapes[i][1:]) for shapes in made.shapes]
        for i in (0, 1)
    ]
    for tensor in tensors[0]:
        tensor.requires_grad_()
    if same:
        tensors[1] = tensors[0]
    supply = {name: lambda value=v: value for name, v in supply.items()}
    return made(*tensors, (32, 32), supply, seed)
