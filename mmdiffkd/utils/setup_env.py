"""What mmdiffkd expects of, and tells, the packages around it.

Packages are known by their import names alone: the same ``mmdet`` may come
from one distribution or from another.
"""

import importlib.util
import runpy
import sys
from collections.abc import Mapping
from functools import cache
from importlib import import_module, metadata
from pathlib import Path

from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import DefaultScope
from mmengine.utils import digit_version

#: The oldest versions that can work; there are no newest ones. From torch
#: 2.6 on, `torch.serialization.safe_globals` takes what checkpoints need; of
#: the others, these are the last releases of OpenMMLab's own distributions.
MINIMUM_VERSIONS = {
    'torch': '2.6',
    'pydantic': '2.0',
    'mmengine': '0.10.7',
    'mmcv': '2.1.0',
    'mmpretrain': '1.2.0',
    'mmdet': '3.3.0',
    'mmseg': '1.2.2',
}


@cache
def package_version(name: str) -> str | None:
    """The version of a package, without importing it.

    Args:
        name (str): The import name, such as ``'mmseg'``.

    Returns:
        str or None: Its version, ``'unknown'`` where none is told, None
        where the package is not there.
    """
    if name in sys.modules:
        return getattr(sys.modules[name], '__version__', 'unknown')
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).with_name('version.py')
    if file.is_file():
        return runpy.run_path(str(file)).get('__version__', 'unknown')
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return 'unknown'


def check_versions(minimum: Mapping[str, str] = MINIMUM_VERSIONS) -> None:
    """Refuse packages that are too old.

    Packages that are not there are no error: mmdet is needed for detectors
    only. Newer versions are never refused.

    Args:
        minimum (Mapping[str, str]): Oldest version by import name. Defaults
            to :data:`MINIMUM_VERSIONS`.

    Raises:
        ImportError: If a package is older than that.
    """
    for name, oldest in minimum.items():
        found = package_version(name)
        if found in (None, 'unknown'):
            continue
        if digit_version(found) < digit_version(oldest):
            raise ImportError(
                f'mmdiffkd needs {name} >= {oldest}, but {found} is '
                f'installed. Install a newer {name}; '
                '`python -m mmdiffkd.utils.collect_env` lists what is there.'
            )


def register_config_packages() -> None:
    """Let MMEngine find the configs of packages by their import names.

    ``_base_ = 'mmseg::...'`` looks for a distribution called
    ``mmsegmentation``, which is not what the maintained one is called, and
    ``'mmdiffkd::...'`` is unknown to it. An entry that is no distribution is
    looked up as a module, wherever that lies.
    """
    for module, distribution in MODULE2PACKAGE.items():
        if module == distribution or importlib.util.find_spec(module) is None:
            continue
        try:
            metadata.distribution(distribution)
        except metadata.PackageNotFoundError:
            MODULE2PACKAGE[module] = module
    # Not 'mmdiffkd': where it is installed with `pip install -e`, some
    # versions of MMEngine would look beside the distribution's metadata.
    MODULE2PACKAGE['mmdiffkd'] = 'mmdiffkd.version'


def register_all_modules(init_default_scope: bool = True) -> None:
    """Register everything in mmdiffkd.

    Configs do not need it, since a type written ``mmdiffkd.<Name>`` is found
    without. It exists because OpenMMLab's tools call it.

    Args:
        init_default_scope (bool): Make ``mmdiffkd`` the scope in which names
            without a prefix are looked up. Defaults to True.
    """
    for name in ('models', 'engine'):
        import_module(f'mmdiffkd.{name}')
    if init_default_scope:
        scope = DefaultScope.get_current_instance()
        if scope is None or scope.scope_name != 'mmdiffkd':
            DefaultScope.get_instance('mmdiffkd', scope_name='mmdiffkd')
