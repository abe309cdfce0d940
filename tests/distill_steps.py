"""A training step of a distiller: what is compared, and what it trains."""

import torch
from mmpretrain.structures import DataSample
from torch import Tensor, nn

#: Neck and loss of an entry, where any will do.
PROJECTED = dict(neck=dict(type='ProjectionNeck'), loss=dict(type='MSELoss'))
Shapes = list[tuple[tuple[int, ...], tuple[int, ...]]]


def images(
    size: int = 16, channels: int = 3, count: int = 2, labels=(0, 1)
) -> dict:
    """Normalised random images with labels, as a classifier takes them.

    Args:
        size (int): Height and width. Defaults to 16.
        channels (int): Of the images. Defaults to 3.
        count (int): The number of images. Defaults to 2.
        labels (Sequence): Those of the images, in turn. Defaults to (0, 1).
    """
    samples = [
        DataSample().set_gt_label(labels[i % len(labels)])
        for i in range(count)
    ]
    inputs = torch.randn(count, channels, size, size)
    return dict(inputs=inputs, data_samples=samples)


def distillation(losses: dict) -> Tensor:
    """The sum of what distillation adds to the losses."""
    return sum(v for k, v in losses.items() if k.startswith('distill.'))


def compared(model: nn.Module, data: dict) -> dict[str, Shapes]:
    """Run a step; see that distillation trains the student.

    Args:
        model (nn.Module): A distiller.
        data (dict): The arguments of its forward.

    Returns:
        dict[str, list]: For each entry the shapes of student and teacher
        that reach its losses, a pair a level.
    """
    shapes, handles = {}, []
    for name, entry in model.distill.items():
        for loss in set(entry.losses):
            handles.append(
                loss.register_forward_pre_hook(
                    lambda module, args, name=name: shapes.setdefault(
                        name, []
                    ).append(tuple(tuple(x.shape) for x in args[:2]))
                )
            )
    model.train()
    losses = model(**data, mode='loss')
    for handle in handles:
        handle.remove()
    added = distillation(losses)
    assert added.isfinite()
    trained = [p for p in model.student.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(
        added, trained, allow_unused=True, retain_graph=True
    )
    assert any(g is not None and g.any() for g in gradients)
    total, _ = model.parse_losses(losses)
    total.backward()
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        assert gradient is None or gradient.isfinite().all(), name
    for teacher in model.teachers.values():
        assert all(p.grad is None for p in teacher.network.parameters())
    return shapes


def pair(*shape: int) -> Shapes:
    """One level, whose two tensors have this shape."""
    return [(shape, shape)]
