"""What ``tools/train.py`` and ``tools/test.py`` share."""

import argparse
import copy
import gc
import inspect
import logging
import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.device import get_device
from mmengine.dist import barrier, is_distributed
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import FlexibleRunner, Runner
from torch.distributed import destroy_process_group, init_process_group

from .config import load_config, plain_config
from .naming import did_you_mean
from .pipelines import LoadErrorHook
from .safe_loader import guard_run

#: What a run reads at the top level of a config beside what stands there.
_TOP_LEVEL = {
    *inspect.signature(Runner).parameters,
    *inspect.signature(FlexibleRunner).parameters,
    'auto_scale_lr',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
    'trusted',
}


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that training and testing have in common."""
    parser.add_argument(
        '--work-dir',
        help='where logs and results go; without it, the config decides, '
        'and without that ./work_dirs/<name of the config>',
    )
    parser.add_argument(
        '--amp', action='store_true', help='automatic mixed precision'
    )
    parser.add_argument(
        '--no-pin-memory',
        action='store_true',
        help='do not pin the memory of data loaders',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config, for example '
        'optim_wrapper.optimizer.lr=0.05; lists are written key="[a,b]", '
        'without white space',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how the processes were started. Defaults to none.',
    )
    # torch.distributed.launch, which MIM calls, passes one spelling or the
    # other, depending on its version.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def read_run_config(args: argparse.Namespace) -> Config:
    """Read the config of a run and merge the common flags into it.

    ``--cfg-options`` come first, so that every other flag meets a config
    that already has them. The folder of the run is, in this order, that of
    ``--work-dir``, of the config, or ``./work_dirs/<name of the config>``.

    Args:
        args (argparse.Namespace): Parsed flags, with ``config``.

    Returns:
        Config: The config, ready for the flags of one tool alone.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = load_config(args.config)
    merge_options(cfg, args.cfg_options or {})
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('./work_dirs', Path(args.config).stem)
    return cfg


def merge_options(cfg: Config, options: Mapping[str, object]) -> None:
    """Merge ``--cfg-options`` into a config.

    MMEngine adds whatever name it is given. A mistyped one would change
    nothing, and nobody would notice. Where an option changes a ``type``, a
    warning names the keys of the former type that stay.

    Args:
        cfg (Config): The config, changed in place.
        options (Mapping[str, object]): Values by path, such as
            ``'model.distill.feature.weight'``.

    Raises:
        ValueError: If an option leaves out an entry that the config does not
            have, its first name is new and much like another, or it lies
            inside a value that is no dict and no list.
    """
    entries = (cfg.get('model') or {}).get('distill') or {}
    if isinstance(entries, str) or isinstance(entries.get('preset'), str):
        # What entries a preset has is known when the networks are.
        entries = {}
    known = {*cfg, *_TOP_LEVEL}
    for key, value in options.items():
        option = f'--cfg-options {key}={value}'
        *parents, name = key.split('.')
        leaves_out = parents == ['model', 'distill'] and value is None
        if leaves_out and entries and name not in entries:
            raise ValueError(
                f'{option}: `distill` has no entry {name!r} to leave out. '
                + did_you_mean(name, entries)
            )
        first = key.partition('.')[0]
        near = get_close_matches(first, known, n=1, cutoff=0.8)
        if near and first not in known and not first.startswith('tta_'):
            raise ValueError(
                f'{option}: the config has no {first!r}, and nothing would '
                f'read it. Did you mean {near[0]!r}?'
            )
        if '.'.join([*parents, '_delete_']) not in options:
            _check_parents(cfg, parents, option)
    before = copy.deepcopy(entries)
    cfg.merge_from_dict(dict(options))
    for key in options:
        match key.split('.'):
            case 'model', 'distill', name, part, 'type' if before.get(name):
                former = before[name].get(part) or {}
                _name_kept(former, cfg.model.distill[name][part], key)


def _check_parents(cfg: Config, path: list[str], option: str) -> None:
    """Refuse an option inside a value that is no dict and no list."""
    found: object = cfg
    for depth, name in enumerate(path, 1):
        if isinstance(found, list) or name not in found:
            return
        found = found[name]
        if not isinstance(found, dict | list):
            raise ValueError(
                f'{option}: `{".".join(path[:depth])}` is {found!r}, in which '
                'nothing can be set. Give it as a whole.'
            )


def _name_kept(former: Mapping, part: Mapping, key: str) -> None:
    """Warn of keys that a neck or loss keeps from its former type."""
    kept = [k for k in former if k != 'type' and part.get(k) == former[k]]
    if kept and former.get('type') != part.type:
        print_log(
            f'--cfg-options {key}={part.type}: {", ".join(kept)} stay from '
            f'the former type. {key.removesuffix("type")}_delete_=True '
            'replaces the whole dict.',
            'current',
            logging.WARNING,
        )


def package_of(cfg: Config) -> str:
    """The package in whose words a config is written.

    Args:
        cfg (Config): The config of a run, a distiller's or a plain one.

    Returns:
        str: Its ``default_scope``. Configs with classes for types may
        have none: then the package of the model's class, or of the class
        that it derives from.
    """
    if cfg.get('default_scope') is not None:
        return cfg.default_scope
    kind = plain_config(cfg).model.type
    if isinstance(kind, str):
        return kind.partition('.')[0]
    packages = [
        cls.__module__.partition('.')[0]
        for cls in getattr(kind, '__mro__', [kind])
    ]
    known = ('mmpretrain', 'mmdet', 'mmseg')
    return next((p for p in packages if p in known), packages[0])


def complete_dataloaders(cfg: Config, args: argparse.Namespace) -> None:
    """Fill in what configs leave to OpenMMLab's own tools.

    Memory is pinned where there is a GPU, workers persist where there are
    any, and mmpretrain's images, all of one size, are stacked by the
    workers. A config's own setting wins, except that workers which do not
    exist cannot persist.

    Args:
        cfg (Config): The config of a run, changed in place.
        args (argparse.Namespace): Parsed flags.
    """
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(name)
        if loader is None:
            continue
        loader.setdefault('pin_memory', torch.cuda.is_available())
        loader.setdefault('persistent_workers', True)
        if package_of(cfg) == 'mmpretrain':
            loader.setdefault('collate_fn', ConfigDict(type='default_collate'))
        if args.no_pin_memory:
            loader.pin_memory = False
        no_workers = loader.get('num_workers', 0) == 0
        if no_workers or getattr(args, 'no_persistent_workers', False):
            loader.persistent_workers = False


def _join_processes_without_gpu(cfg: Config) -> None:
    """Let torchrun's processes train on CPUs, which MMEngine does not.

    MMEngine gives each process a GPU, unless they have met already.
    """
    if cfg.get('launcher') != 'pytorch' or get_device() != 'cpu':
        return
    if not is_distributed():
        init_process_group('gloo')
    wrapper = cfg.get('model_wrapper_cfg') or ConfigDict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    cfg.model_wrapper_cfg = ConfigDict(wrapper, device_ids=None)


def build_runner(cfg: Config) -> Runner:
    """Build the runner that the config asks for.

    It names files that cannot be read, see
    :class:`~mmdiffkd.utils.pipelines.LoadErrorHook`, and reads
    checkpoints without running code from them, see
    :func:`~mmdiffkd.utils.safe_loader.guard_run`.

    Args:
        cfg (Config): The complete config of a run.

    Returns:
        Runner: MMEngine's ``Runner``, or the one named in ``runner_type``.
    """
    guard_run(cfg)
    _join_processes_without_gpu(cfg)
    if 'runner_type' in cfg:
        runner = RUNNERS.build(cfg)
    else:
        runner = Runner.from_cfg(cfg)
    runner.register_hook(LoadErrorHook())
    return runner


def end_workers(runner: Runner) -> None:
    """End the workers of a runner's data loaders.

    Persistent ones would otherwise be left to the garbage collector, which
    takes the queues down first, so that each worker is waited for in vain, 5
    seconds long.

    Args:
        runner (Runner): One that is done.
    """
    for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
        loader = getattr(loop, 'dataloader', None)
        workers = getattr(loader, '_iterator', None)
        if workers is not None:
            workers._shutdown_workers()
            loader._iterator = None


def leave_processes() -> None:
    """End the process group, before the interpreter takes it apart.

    Its threads would otherwise run into a half-ended process now and then,
    which torchrun reports as a failed run.
    """
    if is_distributed():
        # The wrapped model, in a cycle with its runner, holds the group too.
        gc.collect()
        barrier()
        destroy_process_group()
