"""Building a teacher's network, and what is known of it."""

from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config
from mmengine.model import BaseDataPreprocessor, revert_sync_batchnorm
from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import nn

from mmdiffkd.utils import load_config, plain_config
from mmdiffkd.utils.naming import left_over_hint

from .libraries import Statistics, build_network, statistics_of
from .nested import check_teacher
from .normalization import build_preprocessor
from .spec import TeacherSpec


def build_from_config(config: Config) -> nn.Module:
    """Build the model of a config under that config's own scope.

    Args:
        config (Config): A whole config, as a recipe's file gives it.

    Returns:
        nn.Module: The model; a top-level ``data_preprocessor`` goes to it,
        as MMEngine's runner does.
    """
    model = config.model.copy()
    if config.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', config.data_preprocessor)
    if config.get('default_scope') is not None:
        model.setdefault('_scope_', config.default_scope)
    return MMENGINE_MODELS.build(model)


class TeacherNetwork(NamedTuple):
    """A teacher's network.

    Attributes:
        network (nn.Module): The network.
        preprocessor (nn.Module or None): What normalises its images: what
            ``data_preprocessor`` of the teacher gives, else its own.
        maker (str): Who has made its weights, which initialising would draw
            again, for the log; empty if nobody has.
        statistics (Statistics or None): What its library says of its images.
        says_nothing (str): That neither keys nor config nor the network
            itself say what normalises its images, for the log; empty if one
            of them does.
    """

    network: nn.Module
    preprocessor: nn.Module | None
    maker: str
    statistics: Statistics | None
    says_nothing: str


def build_teacher_network(spec: TeacherSpec, key: str) -> TeacherNetwork:
    """Build the network that a config or a library describes.

    Args:
        spec (TeacherSpec): The teacher's keys.
        key (str): Where it stands in the distiller's config, for messages.

    Raises:
        ValueError: If it cannot be built, or holds a teacher of its own.
    """
    build = _by_config if spec.module is None else _by_module
    return build(spec, key)


def _by_config(spec: TeacherSpec, key: str) -> TeacherNetwork:
    config = _read_config(spec.config, key)
    try:
        network = build_from_config(config)
    except TypeError as error:
        raise TypeError(
            f'`{key}.config`: {error}{left_over_hint(error)}'
        ) from error
    scope = config.model.get('_scope_') or config.get('default_scope')
    network, preprocessor = _finished(network, spec, scope, key)
    parts = config.model, config.model.get('backbone') or {}
    pretrained = any(part.get('pretrained') is True for part in parts)
    says = (
        spec.data_preprocessor is not None
        or config.model.get('data_preprocessor')
        or config.get('data_preprocessor')
    )
    check_teacher(network, f'{key}.config')
    return TeacherNetwork(
        network,
        preprocessor,
        'those that `pretrained=True` in its config loaded'
        if pretrained
        else '',
        None,
        '' if says else "The teacher's config has no `data_preprocessor`.",
    )


def _by_module(spec: TeacherSpec, key: str) -> TeacherNetwork:
    network = build_network(spec.module, spec.kwargs or {}, key)
    network, preprocessor = _finished(network, spec, None, key)
    says = spec.data_preprocessor is not None or type(preprocessor) not in (
        type(None),
        BaseDataPreprocessor,
    )
    check_teacher(network, f'{key}.module')
    return TeacherNetwork(
        network,
        preprocessor,
        'those of the module that was given'
        if isinstance(spec.module, nn.Module)
        else f'those with which {spec.module!r} built it',
        statistics_of(network, spec.checkpoint),
        ''
        if says
        else 'Nothing says what normalises the images of the teacher '
        f'{type(network).__name__}.',
    )


def _finished(
    network: nn.Module, spec: TeacherSpec, scope: str | None, key: str
) -> tuple[nn.Module, nn.Module | None]:
    network = revert_sync_batchnorm(network)
    preprocessor = getattr(network, 'data_preprocessor', None)
    if spec.data_preprocessor is not None:
        preprocessor = build_preprocessor(
            spec.data_preprocessor, network, scope, key
        )
    return network, preprocessor


def _read_config(given: str | Path | dict | Config, key: str) -> Config:
    config = load_config(given)
    if 'model' not in config:
        raise ValueError(
            f'`{key}.config` is no whole config: it has no key `model`. Give '
            'dict(model=..., default_scope=...) or a file.'
        )
    return plain_config(config)
