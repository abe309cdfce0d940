"""Checks that necks share, so that they refuse input in the same words."""

from torch import Tensor

_SHAPES = {'map': '(B, C, H, W)', 'vector': '(B, C)'}
_RANKS = {4: 'map', 2: 'vector'}


def check_channels(**channels: int | None) -> None:
    """Refuse channels that are missing or not positive.

    Args:
        **channels (int | None): Numbers by their arguments' names.

    Raises:
        ValueError: Names the argument and the cure.
    """
    for name, value in channels.items():
        if value is None:
            raise ValueError(
                f'{name}=None: only a distiller can read the channels off '
                f'its networks; give {name} to a neck that stands alone'
            )
        if value < 1:
            raise ValueError(f'{name}={value} must be at least 1')


def check_feature(
    side: str, tensor: Tensor, channels: int, feature: str
) -> None:
    """Refuse a tensor that is not the kind of feature that was announced.

    Args:
        side (str): 'student' or 'teacher'.
        tensor (Tensor): The tensor.
        channels (int): The channels it should have.
        feature (str): 'map' for (B, C, H, W), 'vector' for (B, C).

    Raises:
        ValueError: If rank or channels differ.
    """
    shape = tuple(tensor.shape)
    found = _RANKS.get(tensor.dim())
    if found is None:
        raise ValueError(
            f'The {side} tensor has the shape {shape}, but feature='
            f'{feature!r} takes {_SHAPES[feature]}: reshape it (a distiller '
            'turns tokens (B, N, C) into maps by itself)'
        )
    if found != feature:
        raise ValueError(
            f'The {side} tensor has the shape {shape}, but feature='
            f'{feature!r} takes {_SHAPES[feature]}: set feature={found!r}'
        )
    _check_width(side, tensor, channels)


def check_map(side: str, tensor: Tensor, channels: int) -> None:
    """Refuse what is no map with the channels that were announced.

    For necks without an argument ``feature``.

    Args:
        side (str): 'student' or 'teacher'.
        tensor (Tensor): The tensor.
        channels (int): The channels it should have.

    Raises:
        ValueError: If rank or channels differ.
    """
    if tensor.dim() != 4:
        raise ValueError(
            f'The {side} tensor has the shape {tuple(tensor.shape)}, but '
            f'this neck takes maps {_SHAPES["map"]}: tap a module that '
            'returns maps, or use another neck, ProjectionNeck say'
        )
    _check_width(side, tensor, channels)


def _check_width(side: str, tensor: Tensor, channels: int) -> None:
    shape = tuple(tensor.shape)
    if shape[1] != channels:
        raise ValueError(
            f'The {side} tensor of shape {shape} has {shape[1]} channels, '
            f'but {side}_channels={channels}: set '
            f'{side}_channels={shape[1]}'
        )


def check_batch_statistics(side: str, tensor: Tensor) -> None:
    """Refuse a batch in which batch norm finds one value per channel.

    Raises:
        ValueError: Names the shape and the cure.
    """
    shape = tuple(tensor.shape)
    if tensor.numel() == shape[1]:
        raise ValueError(
            f'The {side} tensor of shape {shape} has one value per channel, '
            'from which batch norm cannot learn: use a batch size of 2 or '
            'more, and drop_last=True in train_dataloader if its last batch '
            'holds a single sample'
        )
