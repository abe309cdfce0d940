"""Stock recipes, wrapped in a distiller and reduced to two iterations."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mmengine.config import Config

from mmdiffkd.models.distillers.context import task_of
from mmdiffkd.models.distillers.known_taps import taps_of
from mmdiffkd.models.distillers.teacher import build_from_config
from mmdiffkd.utils import load_config
from mmdiffkd.utils.python_text import as_python

from .distill_config import lines

ITERATIONS = 2
BATCH_SIZE = 2
# What lengths are divided by. Classifiers keep theirs: many take no other.
SHRINK = {'mmdet': 4, 'mmseg': 8}
# A smaller number under one of the keys is not a length in pixels.
SHORTEST = 64
LENGTHS = {
    'border',
    'crop_size',
    'img_scale',
    'max_size',
    'random_size_range',
    'scale',
    'scales',
    'size',
    'stride',
}
# When stock hooks change the last epochs: here before the second iteration.
LAST_EPOCHS = {'num_last_epochs': 0, 'switch_epoch': 1}


def default_taps(config: Config) -> list[str]:
    """Where to distil a recipe of which nothing else is said.

    A detector's pyramid, if its neck makes one; a segmentor's logits; else
    the last map, by :func:`~.known_taps.taps_of`. ``'backbone[-1]'`` where
    that is not known.
    """
    network = build_from_config(config)
    taps, task = taps_of(network), task_of(network)
    found = None
    if task == 'detection' and 'neck' in config.model:
        found = taps['pyramid']
    elif task == 'segmentation':
        found = taps['logits']
    return list(found or taps['last_map'] or ('backbone[-1]',))


def distilled(name: str, taps: Sequence[str], file: Path) -> Config:
    """A recipe with the documented lines around it, an entry for each tap.

    The lines are written to ``file``.
    """
    compared = dict(neck=dict(type='DiffKDNeck'), loss=dict(type='MSELoss'))
    entries = {
        f'tap{n}': dict(at=tap, **compared) for n, tap in enumerate(taps)
    }
    text = lines(
        name,
        load_config(name),
        dict(config=name, checkpoint=None),
        f'    distill={as_python(entries, 4)}',
    )
    file.write_text(text)
    return load_config(file)


def reduce(config: Config, shrink: int | None = None) -> None:
    """Leave two iterations on two small images, from random weights.

    Args:
        config (Config): A recipe, or one with the lines around it. Changed
            in place.
        shrink (int, optional): What lengths in the pipeline are divided by.
            Defaults to None: :data:`SHRINK`.
    """
    plain = config.model.get('student', config.model)
    for part in _dicts(plain):
        if 'Pretrained' in str(part.get('init_cfg')):
            part['init_cfg'] = None
        if part.get('pretrained'):
            part['pretrained'] = None
    if shrink is None:
        shrink = SHRINK.get(config.get('default_scope'), 1)
    with_lengths = [
        config.train_dataloader,
        config.val_dataloader,
        config.get('custom_hooks'),
        config.get('data_preprocessor'),
        plain.get('data_preprocessor'),
        plain.get('test_cfg'),
    ]
    for part in _dicts(with_lengths):
        for key in LENGTHS & part.keys():
            part[key] = _shorter(part[key], shrink)
    for loader in (config.train_dataloader, config.val_dataloader):
        loader.batch_size = min(loader.batch_size, BATCH_SIZE)
        loader.update(num_workers=0, persistent_workers=False)
        loader.pop('prefetch_factor', None)
    config.train_dataloader.batch_size = BATCH_SIZE
    dataset = config.train_dataloader.dataset
    while dataset is not None:
        if 'times' in dataset:
            dataset.times = 1
        dataset = dataset.get('dataset')
    by_epoch = 'max_epochs' in config.train_cfg
    length = 'max_epochs' if by_epoch else 'max_iters'
    schedulers = config.get('param_scheduler') or []
    if isinstance(schedulers, dict):
        schedulers = [schedulers]
    for scheduler in schedulers:
        # The runner would take the new length, which may lie before `begin`.
        begin = scheduler.get('begin', 0)
        scheduler.setdefault('end', begin + config.train_cfg[length])
    config.train_cfg[length] = ITERATIONS
    config.train_cfg.val_interval = ITERATIONS
    for hook in config.get('custom_hooks') or []:
        hook.update({k: v for k, v in LAST_EPOCHS.items() if k in hook})
    config.default_hooks.logger.interval = 1
    config.update(load_from=None, resume=False, randomness=dict(seed=0))


def _dicts(value: object) -> Iterator[dict]:
    """Every dict in a config, outer ones first."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _dicts(item)


def _shorter(value: object, shrink: int) -> object:
    if isinstance(value, (list, tuple)):
        return type(value)(_shorter(item, shrink) for item in value)
    if isinstance(value, int) and abs(value) >= SHORTEST:
        return value // shrink
    return value
