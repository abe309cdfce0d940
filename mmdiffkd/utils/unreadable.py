"""Naming the file that cannot be read.

Image decoders see bytes and know no file name: an empty image, or a broken
label map, would end a run with a message that does not say which one.
"""

from collections.abc import Callable
from functools import partial

from mmengine.hooks import Hook
from mmengine.runner import Runner

from .pipelines import transforms_of

PATHS = ('img_path', 'seg_map_path')


class UnreadableFileHook(Hook):
    """Name the file where loading it fails, and data sets without samples.

    Watches the ``Load...`` transforms of every pipeline in the run. Nothing
    else of them changes: neither their type nor what they return.
    ``build_runner`` adds it to each run of our tools.
    """

    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Watch the pipelines, before any worker has started.

        Raises:
            ValueError: If a data set has no samples.
        """
        for kind in ('train', 'val', 'test'):
            loop = getattr(runner, f'_{kind}_loop')
            # Loops that this run does not need are still dicts or None.
            loader = getattr(loop, 'dataloader', None)
            if loader is not None and not isinstance(loop, dict):
                _check_samples(loader.dataset, f'{kind}_dataloader.dataset')
                watch_pipelines(loader.dataset)


def watch_pipelines(dataset: object) -> None:
    """Watch the loading transforms of a data set and of those it wraps."""
    for transform in transforms_of(dataset):
        name = type(transform).__name__
        watched = isinstance(vars(transform).get('transform'), partial)
        if name.startswith('Load') and not watched:
            transform.transform = partial(_load, transform.transform, name)


def _check_samples(dataset: object, key: str) -> None:
    if not hasattr(dataset, '__len__') or len(dataset):
        return
    places = {
        name: getattr(dataset, name, None)
        for name in ('ann_file', 'data_prefix')
    }
    read = ', '.join(f'{k}={v!r}' for k, v in places.items() if v)
    raise ValueError(
        f'`{key}` has no samples ({read or "wrapped"}). See that its files '
        'list images, and that `filter_cfg` leaves some.'
    )


def _load(load: Callable, name: str, results: dict) -> dict | None:
    try:
        return load(results)
    except Exception as error:
        paths = {key: results[key] for key in PATHS if results.get(key)}
        if not paths or any(str(p) in str(error) for p in paths.values()):
            raise
        described = ', '.join(f'{key}={p!r}' for key, p in paths.items())
        reason = ' '.join(f'{type(error).__name__}: {error}'.split())
        raise ValueError(
            f'{name} cannot read {described} ({reason}). Replace the file, '
            'or take it out of the data set.'
        ) from error
