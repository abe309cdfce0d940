"""Shape checks and numeric helpers that losses share."""

from collections.abc import Sequence

import torch
from torch import Tensor


def check_equal_shapes(
    student: Sequence[int], teacher: Sequence[int], any_channels: bool = False
) -> None:
    """Refuse tensors of different shapes; PyTorch might broadcast them.

    Args:
        student (Sequence[int]): The shape of the student's tensor.
        teacher (Sequence[int]): That of the teacher's.
        any_channels (bool): Whether the channels, axis 1, may differ.
            Defaults to False.

    Raises:
        ValueError: Names both shapes and the cure.
    """
    student, teacher = tuple(student), tuple(teacher)
    shapes = student, teacher
    if any_channels:
        shapes = tuple(shape[:1] + shape[2:] for shape in shapes)
    if shapes[0] != shapes[1]:
        raise ValueError(
            f'preds_S of shape {student} and preds_T of shape {teacher} '
            'cannot be compared: '
            + (
                'they may differ in channels, axis 1, alone'
                if any_channels
                else 'put a neck that brings the student to the channels of '
                'the teacher before the loss'
            )
        )


def comparable(
    preds_S: Tensor, preds_T: Tensor, any_channels: bool = False
) -> tuple[Tensor, Tensor]:
    """Check that two tensors have one shape and bring them to one precision.

    Args:
        preds_S (Tensor): The student's.
        preds_T (Tensor): The teacher's.
        any_channels (bool): See :func:`check_equal_shapes`. Defaults to
            False.

    Returns:
        tuple[Tensor, Tensor]: Both in float32, or in float64 if either is,
        whatever autocast made of them.

    Raises:
        ValueError: If the shapes differ.
    """
    check_equal_shapes(preds_S.shape, preds_T.shape, any_channels)
    dtype = torch.promote_types(preds_S.dtype, preds_T.dtype)
    dtype = torch.promote_types(dtype, torch.float32)
    return preds_S.to(dtype), preds_T.to(dtype)


def divided(x: Tensor, size: Tensor, eps: float = 0.0) -> Tensor:
    """``x / (size + eps)``, or x itself where there is no size to divide by.

    Bounding the size by a tiny number instead would give gradients as large
    as its inverse, which half precision cannot hold.

    Args:
        x (Tensor): What to divide.
        size (Tensor): Its size, 0 or more, such that it broadcasts. A size
            of at most ``max(eps, 1e-12)`` counts as 0.
        eps (float): Added to the size. Defaults to 0.
    """
    return x / torch.where(size > max(eps, 1e-12), size + eps, 1)


def unit(x: Tensor, dim: int = 1, eps: float = 0.0) -> Tensor:
    """Scale vectors to length 1; those without a length stay as they are.

    Args:
        x (Tensor): The vectors.
        dim (int): The axis along which they lie. Defaults to 1.
        eps (float): See :func:`divided`. Defaults to 0.
    """
    length = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    return divided(x, length, eps)


def inner_products(x: Tensor) -> Tensor:
    """Of all pairs of rows: (..., N, D) to (..., N, N).

    In the precision of x; autocast would multiply in half precision.
    """
    with torch.autocast(x.device.type, enabled=False):
        return x @ x.mT


def check_tensor_channels(tensor: Tensor, **channels: int) -> None:
    """Refuse a tensor that has other channels than the loss was built for.

    Args:
        tensor (Tensor): Of shape (B, C, ...).
        **channels (int): The expected C, by its argument's name.

    Raises:
        ValueError: Names the argument and the cure.
    """
    for name, expected in channels.items():
        if tensor.shape[1] != expected:
            raise ValueError(
                f'{name}={expected}, but the tensor of shape '
                f'{tuple(tensor.shape)} has {tensor.shape[1]} channels: set '
                f'{name}={tensor.shape[1]}, or leave it to the distiller'
            )


def check_groups(groups: int) -> None:
    """Refuse what is no number of distributions side by side.

    Args:
        groups (int): The argument of a loss.

    Raises:
        ValueError: If it is not a positive integer.
    """
    if not isinstance(groups, int) or groups < 1:
        raise ValueError(f'groups={groups!r} must be an integer, 1 or more')
