"""Configs, checkpoints and the environment."""

from .checkpoint import (
    DISTILL_PREFIX,
    class_names,
    load_weights,
    plain_state_dict,
    read_checkpoint,
)
from .config import (
    check_weight_files,
    find_config,
    is_distiller,
    load_config,
    parse_config,
    plain_config,
    plain_recipe,
    teachers_of,
)
from .setup_env import register_all_modules

__all__ = [
    'DISTILL_PREFIX',
    'check_weight_files',
    'class_names',
    'find_config',
    'is_distiller',
    'load_config',
    'load_weights',
    'parse_config',
    'plain_config',
    'plain_recipe',
    'plain_state_dict',
    'read_checkpoint',
    'register_all_modules',
    'teachers_of',
]
