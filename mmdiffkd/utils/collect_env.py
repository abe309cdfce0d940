"""What to tell when something does not work.

``python -m mmdiffkd.utils.collect_env``
"""

from importlib import import_module, metadata

from mmengine.utils.dl_utils import collect_env as collect_base_env

from .setup_env import MINIMUM_VERSIONS, package_version

PACKAGES = ('mmdiffkd', *MINIMUM_VERSIONS, 'torchvision', 'numpy', 'cv2')


def collect_env() -> dict[str, str]:
    """Collect the versions of everything that a run depends on.

    Returns:
        dict[str, str]: What MMEngine collects (system, Python, GPUs,
        compilers, PyTorch), then each package by its import name, with the
        distribution that it came from, then whether mmcv has its operators.
    """
    env = {name: str(value) for name, value in collect_base_env().items()}
    distributions = metadata.packages_distributions()
    for name in PACKAGES:
        version = package_version(name)
        sources = ', '.join(
            f'{source} {metadata.version(source)}'
            for source in sorted(set(distributions.get(name, ())))
        )
        if version is None:
            env[name] = 'not installed'
        else:
            env[name] = f'{version} (distribution: {sources or "none"})'
    try:
        import_module('mmcv.ops')
        env['Operators of mmcv'] = 'compiled'
    except ImportError as error:
        env['Operators of mmcv'] = f'missing ({error})'
    return env


if __name__ == '__main__':
    for name, value in collect_env().items():
        print(f'{name}: {value}')
