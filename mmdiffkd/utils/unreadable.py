"""Naming the file that cannot be read.

Image decoders see bytes and know no file name: an empty image, or a broken
label map, would end a run with a message that does not say which one.
"""

from collections.abc import Callable
from functools import partial

from mmengine.hooks import Hook
from mmengine.runner import Runner

PATHS = ('img_path', 'seg_map_path')


class UnreadableFileHook(Hook):
    """Name the file where loading it fails.

    Watches the ``Load...`` transforms of every pipeline in the run. Nothing
    else of them changes: neither their type nor what they return.
    ``build_runner`` adds it to each run of our tools.
    """

    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Watch the pipelines, before any worker has started."""
        for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
            # Loops that this run does not need are still dicts or None.
            loader = getattr(loop, 'dataloader', None)
            if loader is not None and not isinstance(loop, dict):
                watch_pipelines(loader.dataset)


def watch_pipelines(dataset: object) -> None:
    """Watch the loading transforms of a data set and of those it wraps."""
    for inner in (
        getattr(dataset, 'dataset', None),
        *getattr(dataset, 'datasets', ()),
    ):
        if inner is not None:
            watch_pipelines(inner)
    pipeline = getattr(dataset, 'pipeline', None)
    for transform in getattr(pipeline, 'transforms', ()):
        name = type(transform).__name__
        watched = isinstance(vars(transform).get('transform'), partial)
        if name.startswith('Load') and not watched:
            transform.transform = partial(_load, transform.transform, name)


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
