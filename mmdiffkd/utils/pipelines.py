"""The pipelines of data sets, and naming the file that one cannot load.

Image decoders see bytes and know no file name. On an empty image or a broken
label map, a run would end with a message that does not name the file.
"""

from collections.abc import Callable, Iterator
from functools import partial

from mmengine.hooks import Hook
from mmengine.runner import Runner

PATHS = ('img_path', 'seg_map_path')


def transforms_of(dataset: object) -> Iterator[object]:
    """The transforms of a data set and of those that it wraps.

    Args:
        dataset (object): Any data set, or one of MMEngine's and OpenMMLab's
            wrappers.
    """
    for inner in (
        getattr(dataset, 'dataset', None),
        *getattr(dataset, 'datasets', ()),
    ):
        if inner is not None:
            yield from transforms_of(inner)
    pipeline = getattr(dataset, 'pipeline', None)
    # mmdet's MultiImageMixDataset has a bare list.
    yield from getattr(pipeline, 'transforms', pipeline) or ()


class LoadErrorHook(Hook):
    """Name the file where loading it fails, and data sets without samples.

    The hook watches the ``Load...`` transforms of every pipeline in the run.
    Their type and what they return stay the same. ``build_runner`` adds it
    to each run of our tools.
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
                name_load_errors(loader.dataset)


def name_load_errors(dataset: object) -> None:
    """Let the ``Load...`` transforms of a data set name what they cannot load.

    Args:
        dataset (object): The data set. Those that it wraps are included.
    """
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
