"""Finding and reading configs: by path, by ``package::name``, or as dicts."""

import copy
import importlib.util
from pathlib import Path

from mmengine.config import Config

from .naming import did_you_mean


def find_config(name: str) -> Path:
    """The file of a config.

    Args:
        name (str): A path, or ``package::name`` for a config that an
            installed OpenMMLab package ships, with or without ``.py``:
            ``'mmpretrain::resnet/resnet34_8xb32_in1k.py'``. The package is
            looked up by its import name.

    Returns:
        Path: The file.

    Raises:
        FileNotFoundError: If the package is not installed or has no such
            config; the nearest names are listed.
    """
    package, separator, inner = name.partition('::')
    if not separator:
        path = Path(name)
        if not path.is_file():
            raise FileNotFoundError(
                f'there is no config {name!r}. Give a path that exists from '
                'the current directory, or package::name.'
            )
        return path
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            f'config {name!r}: the package {package!r} is not installed. '
            'Install it, or give a path.'
        )
    folder = Path(spec.origin).parent / '.mim' / 'configs'
    path = folder / inner
    if path.suffix != '.py':
        path = path.with_name(path.name + '.py')
    if not path.is_file():
        known = (p.relative_to(folder) for p in folder.rglob('*.py'))
        raise FileNotFoundError(
            f'{package} ships no config {inner!r}. '
            + did_you_mean(
                str(path.relative_to(folder)),
                (str(p) for p in known if not str(p).startswith('_base_')),
            )
        )
    return path


def load_config(source: str | Path | dict | Config) -> Config:
    """Read a config.

    Args:
        source (str, Path, dict or Config): A path, a ``package::name`` (see
            :func:`find_config`), or the config itself.

    Returns:
        Config: The config; what the caller does to it stays with the caller.
    """
    if isinstance(source, dict):
        source = Config(source)
    if isinstance(source, Config):
        return copy.deepcopy(source)
    config = Config.fromfile(find_config(str(source)))
    _forget_own_scope(config._cfg_dict)
    return config


def plain_config(config: Config) -> Config:
    """A distiller's config with the plain student in its place.

    Args:
        config (Config): A whole config; that of a plain model is returned as
            it is.
    """
    model = config.model
    if not {'student', 'teacher', 'distill'} <= model.keys():
        return config
    plain = copy.deepcopy(config)
    plain.model = plain.model.student
    if model.get('data_preprocessor') is not None:
        plain.data_preprocessor = model.data_preprocessor
    return plain


def _forget_own_scope(value: object) -> None:
    """Undo what ``_base_ = 'mmdiffkd::...'`` does to every typed dict.

    MMEngine would look all types up in mmdiffkd; ours are written with
    their package, the others belong to the recipe's default scope.
    """
    if isinstance(value, dict):
        if value.get('_scope_') == 'mmdiffkd':
            del value['_scope_']
        for item in value.values():
            _forget_own_scope(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _forget_own_scope(item)
