"""Entries of `distill` on tensors of a few numbers, without networks."""

import torch

from mmdiffkd.models.distillers import Entry
from mmdiffkd.models.distillers.build import build_entry
from mmdiffkd.models.distillers.recognition import Tapped
from mmdiffkd.models.distillers.spec import read_entry

MAP_S, MAP_T = torch.Size((2, 4, 8, 8)), torch.Size((2, 6, 8, 8))
VECTOR = torch.Size((2, 5))


def tapped(shape: tuple, grown: tuple | None = None, **keys) -> Tapped:
    """A tensor from images of 32 x 32.

    Args:
        shape (tuple): Its shape with a batch of 2.
        grown (tuple, optional): The same from images of 64 x 64. Defaults to
            None: of a map two axes double, and others cannot be had.
        **keys: Other attributes.
    """
    if grown is None and len(shape) == 4:
        grown = (*shape[:2], 2 * shape[2], 2 * shape[3])
    found = grown and (torch.Size(grown), (64, 64))
    return Tapped(
        'backbone[-1]',
        'backbone[-1]',
        torch.Size(shape),
        elsewhere=lambda: found,
        **keys,
    )


def entry(
    students=(MAP_S,), teachers=(MAP_T,), meta_supply=None, **changes
) -> Entry:
    """A projection and an MSE, unless told otherwise.

    Args:
        students (Sequence): Shapes of the student's tensors, of which maps
            grow with the image on their last two axes, or ``Tapped`` ones.
        teachers (Sequence): The teacher's.
        meta_supply (dict, optional): What a step supplies.
        **changes: Keys of the entry.
    """
    settings = dict(
        at='backbone[-1]',
        neck=dict(type='ProjectionNeck'),
        loss=dict(type='MSELoss'),
    )
    spec = read_entry('feature', {**settings, **changes})
    students, teachers = (
        [t if isinstance(t, Tapped) else tapped(t) for t in tensors]
        for tensors in (students, teachers)
    )
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
