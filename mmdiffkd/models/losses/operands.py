"""What every loss does with its two tensors before it compares them."""

import torch
from torch import Tensor


def comparable(preds_S: Tensor, preds_T: Tensor) -> tuple[Tensor, Tensor]:
    """Check that two tensors have one shape and bring them to one precision.

    Args:
        preds_S (Tensor): The student's.
        preds_T (Tensor): The teacher's.

    Returns:
        tuple[Tensor, Tensor]: Both in float32, or in float64 if either is,
        whatever autocast made of them.

    Raises:
        ValueError: If the shapes differ; PyTorch might broadcast them.
    """
    if preds_S.shape != preds_T.shape:
        raise ValueError(
            f'preds_S of shape {tuple(preds_S.shape)} and preds_T of shape '
            f'{tuple(preds_T.shape)} cannot be compared: put a neck that '
            'brings the student to the channels of the teacher before the '
            'loss'
        )
    dtype = torch.promote_types(preds_S.dtype, preds_T.dtype)
    dtype = torch.promote_types(dtype, torch.float32)
    return preds_S.to(dtype), preds_T.to(dtype)
