"""Configs, setting by setting: against the plain recipe and each other."""

import copy
from collections.abc import Mapping, Sequence

from mmengine.config import Config

from mmdiffkd.utils import is_distiller, plain_recipe

#: What base files leave at the top level, where nothing reads it.
_UNREAD = ('distill', 'distillation', 'teacher', 'teachers')
#: What belongs to a start of the run, not to its recipe.
_OF_A_START = ('work_dir', 'launcher', 'resume')


def settings_of(config: Mapping, prefix: str = '') -> dict[str, str]:
    """A config as values by dotted key, those of ``--cfg-options``.

    Lists that hold dicts are laid out by index, others are one value.

    Args:
        config (Mapping): The config or a part of it.
        prefix (str): What stands before each key. Defaults to nothing.

    Returns:
        dict[str, str]: Key to value as Python text.
    """
    settings = {}
    for name, value in config.items():
        key = f'{prefix}{name}'
        if isinstance(value, list | tuple) and any(
            isinstance(item, Mapping) for item in value
        ):
            value = dict(enumerate(value))
        if isinstance(value, Mapping) and value:
            settings |= settings_of(value, f'{key}.')
        else:
            settings[key] = repr(value)
    return settings


def _without_leftovers(config: Config) -> Config:
    """A copy without what is no setting of the recipe."""
    config = copy.deepcopy(config)
    for key in (*_UNREAD, *_OF_A_START):
        config.pop(key, None)
    return config


def distillation_lines(config: Config) -> list[tuple[str, str, str]]:
    """What a distiller's config adds to the plain recipe, and changes in it.

    The student's own settings are found in both, at ``model.student`` and at
    ``model``, and are no change.

    Args:
        config (Config): A whole config.

    Returns:
        list[tuple[str, str, str]]: Lines of a sign, ``'+'`` or ``'-'``, a
        dotted key and a value; none of a plain model.
    """
    if not is_distiller(config.get('model') or {}):
        return []
    plain = _without_leftovers(plain_recipe(copy.deepcopy(config)))
    config = _without_leftovers(config)
    if 'data_preprocessor' not in config.model.student:
        plain.model.pop('data_preprocessor', None)
    plain.model = dict(student=plain.model)
    before, after = settings_of(plain), settings_of(config)
    lines = []
    for key in [*after, *(key for key in before if key not in after)]:
        if before.get(key) == after.get(key):
            continue
        for sign, settings in (('-', before), ('+', after)):
            if key in settings:
                lines.append((sign, key, settings[key]))
    return lines


def differences(
    configs: Sequence[Config],
) -> dict[str, list[str | None]]:
    """The settings in which runs differ.

    A plain model stands beside the students of distillers.

    Args:
        configs (Sequence[Config]): Their configs.

    Returns:
        dict[str, list[str | None]]: Dotted key to the value in each, None
        where it is not set.
    """
    configs = [_without_leftovers(config) for config in configs]
    if any(is_distiller(config.get('model') or {}) for config in configs):
        for config in configs:
            if not is_distiller(config.get('model') or {}):
                config.model = dict(student=config.get('model'))
    each = [settings_of(config) for config in configs]
    keys = dict.fromkeys(key for settings in each for key in settings)
    rows = {key: [settings.get(key) for settings in each] for key in keys}
    return {
        key: values for key, values in rows.items() if len(set(values)) > 1
    }
