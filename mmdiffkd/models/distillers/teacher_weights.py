"""The weights of a teacher: drawn, or read from a checkpoint."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.logging import MMLogger
from torch import nn

from mmdiffkd.utils import (
    class_names,
    load_weights,
    plain_state_dict,
    read_checkpoint,
)


def forget_pretrained(network: nn.Module) -> None:
    """Let no part of a network begin with pretrained weights.

    Args:
        network (nn.Module): The network.
    """
    for module in network.modules():
        if 'Pretrained' in str(getattr(module, 'init_cfg', None)):
            module.init_cfg = None


def draw_weights(network: nn.Module) -> None:
    """Initialise a network, with pretrained weights in none of its parts.

    Args:
        network (nn.Module): The network.
    """
    forget_pretrained(network)
    if hasattr(network, 'init_weights'):
        with _no_list_of_parameters():
            network.init_weights()


@contextmanager
def _no_list_of_parameters() -> Iterator[None]:
    """Keep off the console how each parameter was initialised.

    MMEngine writes it there if the logger has no file.
    """
    logger = MMLogger.get_current_instance()

    def is_other(record: logging.LogRecord) -> bool:
        return record.funcName != '_dump_init_info'

    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def read_weights(
    network: nn.Module,
    file: str | Path,
    strict: bool,
    trusted: bool,
    keeps_preprocessor: bool,
) -> list[str] | None:
    """Read a teacher's checkpoint.

    Args:
        network (nn.Module): Its network.
        file (str or Path): The checkpoint, a file or an https URL.
        strict (bool): Whether to refuse missing and unexpected keys.
        trusted (bool): Whether to unpickle anything in it.
        keeps_preprocessor (bool): Whether its data preprocessor is given by
            something else than the checkpoint.

    Returns:
        list[str] or None: The names of its classes, where the checkpoint
        tells them.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the checkpoint does not fit the network.
    """
    checkpoint = read_checkpoint(file, trusted=trusted)
    weights = plain_state_dict(checkpoint)
    if keeps_preprocessor:
        # What it may hold belongs to no checkpoint of the teacher.
        prefix = 'data_preprocessor.'
        weights = {
            k: v for k, v in weights.items() if not k.startswith(prefix)
        }
        if hasattr(network, 'data_preprocessor'):
            own = network.data_preprocessor
            weights |= own.state_dict(prefix=prefix)
    load_weights(network, weights, str(file), strict)
    return class_names(checkpoint.get('meta'))
