"""Proving that data are where a config says, before anything is built."""

import inspect
import os
from collections.abc import Iterable, Mapping

from mmengine.config import Config
from mmengine.registry import DATASETS


def check_data_root(cfg: Config, dataloaders: Iterable[str]) -> None:
    """Find missing data by the config alone.

    Looks at ``data_root``, ``ann_file`` and ``data_prefix`` of every data
    set, wrapped ones included, as MMEngine joins them; of an annotation file
    also at its size, and at the end of JSON, without reading it. Data that
    are not on this disk (``s3://...``, ``backend_args``) and data sets that
    download themselves are left to their classes.

    Args:
        cfg (Config): The config of a run.
        dataloaders (Iterable[str]): The loaders that the run needs, such as
            ``'train_dataloader'``. What the config lacks is skipped.

    Raises:
        FileNotFoundError: If something is missing; says which key, where it
            was looked for, and what to do.
        ValueError: If an annotation file is empty or truncated.
    """
    for name in dataloaders:
        loader = cfg.get(name) or {}
        _check(
            loader.get('dataset'), f'{name}.dataset', cfg.get('default_scope')
        )


def _check(dataset: object, key: str, scope: str | None) -> None:
    if isinstance(dataset, list | tuple):
        for i, part in enumerate(dataset):
            _check(part, f'{key}.{i}', scope)
    if not isinstance(dataset, Mapping):
        return
    for wrapped in ('dataset', 'datasets'):
        _check(dataset.get(wrapped), f'{key}.{wrapped}', scope)
    for name, value, path in _places(dataset):
        if not os.path.exists(path) and not _downloads(dataset, scope):
            raise FileNotFoundError(
                f'{key}.{name}={value!r}: there is no '
                f'{os.path.abspath(path)!r}. ' + _cure(path, f'{key}.{name}')
            )
        if os.path.isfile(path) and not _is_whole(path):
            raise ValueError(
                f'{key}.{name}={value!r}: {os.path.abspath(path)!r} is empty '
                'or truncated. Copy or download it again.'
            )


def _places(dataset: Mapping) -> Iterable[tuple[str, str, str]]:
    """Key, value and resolved path of everything on this disk."""
    if dataset.get('backend_args'):
        return
    root = dataset.get('data_root') or ''
    prefix = dataset.get('data_prefix')
    if not isinstance(prefix, Mapping):
        prefix = {'': prefix}
    values = {
        'ann_file': dataset.get('ann_file'),
        **{f'data_prefix.{k}'.rstrip('.'): v for k, v in prefix.items()},
    }
    places = [('data_root', root, root)] + [
        (name, value, os.path.join(root, value))
        for name, value in values.items()
        if isinstance(value, str)
    ]
    for name, value, path in places:
        if value and '://' not in path:
            yield name, value, path


def _is_whole(path: str) -> bool:
    """Whether a file has content and, if it is JSON, an end."""
    size = os.path.getsize(path)
    if not path.endswith('.json'):
        return size > 0
    with open(path, 'rb') as file:
        file.seek(max(size - 64, 0))
        return file.read().rstrip().endswith((b'}', b']'))


def _downloads(dataset: Mapping, scope: str | None) -> bool:
    """Whether a data set fetches what is missing by itself."""
    if 'download' in dataset:
        return dataset['download']
    kind = dataset.get('type')
    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(scope) as registry:
            kind = registry.get(kind)
    if kind is None:
        return False
    argument = inspect.signature(kind).parameters.get('download')
    return argument is not None and argument.default is True


def _cure(path: str, key: str) -> str:
    if 'digit_scenes' in path:
        return (
            'Write the digit scenes, from the root of the repository, with '
            '`python tools/dataset_converters/digit_scenes.py`. If an earlier '
            'version wrote them, with `tuning` for what is now `val`, the '
            'same command writes them again.'
        )
    if 'cifar100' in path:
        return (
            'Unpack `cifar-100-python.tar.gz`, from the CIFAR-100 page of '
            'its authors, in that folder, or say where it is with '
            f'`--cfg-options {key}=...`.'
        )
    return (
        'Put or link the data there, or say where they are with '
        f'`--cfg-options {key}=...`.'
    )
