"""MMEngine's loader of checkpoints, replaced by one that runs no code.

``load_from``, ``--resume``, every ``init_cfg`` and the backbones that convert
weights of others all call ``CheckpointLoader.load_checkpoint``. MMEngine
0.10.7 calls ``torch.load``, for URLs without ``weights_only``. The maintained
distribution falls back to the unsafe way after a warning.

The loader belongs to the process, so that importing a module or building a
model does not replace it. Three places do: our tools when a run begins,
``Distiller.init_weights``, and ``DistillHook.before_run``. Models are among
them, and models may not import :mod:`mmdiffkd.safety`: the loader is here.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import checkpoint as mmengine_checkpoint

from .checkpoint import is_safetensors, read_file
from .download import is_url, local_file, split_digest
from .naming import type_name

#: Strategies whose engines unpickle checkpoints by themselves.
_OWN_READERS = ('DeepSpeedStrategy', 'ColossalAIStrategy')


class SafeLoader:
    """Takes the place of MMEngine's ``CheckpointLoader.load_checkpoint``.

    Args:
        module (ModuleType): ``mmengine.runner.checkpoint``, of whichever
            distribution.
    """

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.original = module.CheckpointLoader.load_checkpoint
        self.trusted = False

    def __call__(
        self,
        filename: str,
        map_location: str | torch.device | Callable | None = None,
        logger: Any = 'current',
    ) -> Any:
        """Read a checkpoint.

        Args:
            filename (str): A path, an https URL, or one of MMEngine's names
                (``torchvision://``, ``open-mmlab://``, ``s3://``, ...).
            map_location (str, torch.device, callable or None): Where tensors
                go, see ``torch.load``. Defaults to None.
            logger (str or Logger): Defaults to ``'current'``.

        Returns:
            Whatever was saved.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is not read, see
                :func:`~mmdiffkd.utils.checkpoint.read_file`.
        """
        name = str(filename)
        if '://' not in name or is_url(name):
            print_log(f'Loads checkpoint from {name}', logger)
            checkpoint = self._read(name, map_location)
        elif split_digest(name)[1]:
            raise ValueError(
                f'checkpoint {name!r}: a sha256 belongs to a file or an '
                'https URL. Leave it out, or give one of these.'
            )
        else:
            # MMEngine finds out which file is meant.
            with self._reading_for_mmengine(name):
                checkpoint = self.original(name, map_location, logger)
        if not self.trusted:
            _forget_config(checkpoint)
        return checkpoint

    def _read(self, source: str, map_location: Any) -> Any:
        return read_file(
            local_file(source), source, self.trusted, map_location
        )

    @contextmanager
    def _reading_for_mmengine(self, name: str) -> Iterator[None]:
        """MMEngine finds the file of a name; this class reads it."""

        def load_from_http(url, map_location=None, *args, **kwargs):
            return self._read(url, map_location)

        def load(file, map_location=None, *args, **kwargs):
            return read_file(file, name, self.trusted, map_location)

        with (
            _replaced(self.module, 'load_from_http', load_from_http),
            _replaced(torch, 'load', load),
        ):
            yield


@contextmanager
def _replaced(owner: object, name: str, value: Callable) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


def _forget_config(checkpoint: object) -> None:
    """Drop the config text that MMEngine's ``resume`` would run.

    Files of MMCV have it. It is Python, and asked for the number of GPUs.
    """
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    if isinstance(meta, dict):
        meta.pop('config', None)


def guard_checkpoints(
    trusted: bool | None = None, module: ModuleType = mmengine_checkpoint
) -> None:
    """Let MMEngine read checkpoints without running code from them.

    This holds for the whole process. A second call changes nothing but
    ``trusted``.

    Args:
        trusted (bool, optional): Unpickle anything from now on, which runs
            code from the files. Defaults to None: as it was, False at first.
        module (ModuleType): Where the loader is. Defaults to
            ``mmengine.runner.checkpoint``.

    Raises:
        ValueError: If ``trusted`` is neither.
    """
    if not isinstance(trusted, bool | None):
        raise ValueError(
            f'`trusted` is {trusted!r} at the top level of the config. Write '
            'True or False.'
        )
    loader = module.CheckpointLoader
    if not isinstance(loader.load_checkpoint, SafeLoader):
        loader.load_checkpoint = SafeLoader(module)
    if trusted is not None:
        loader.load_checkpoint.trusted = trusted


def guard_run(cfg: Config) -> None:
    """Let MMEngine read the checkpoints of a run safely, or as trusted.

    Args:
        cfg (Config): The complete config of a run.

    Raises:
        ValueError: If the run would load a checkpoint through an engine that
            unpickles, and the config does not trust it; or if it would
            resume from a safetensors file.
    """
    trusted = cfg.get('trusted', False)
    guard_checkpoints(trusted)
    loads = cfg.get('load_from') or cfg.get('resume')
    resumed = cfg.get('resume') and cfg.get('load_from')
    if resumed and os.path.isfile(resumed) and is_safetensors(resumed):
        raise ValueError(
            f'`resume` is set, but checkpoint {resumed!r} is a safetensors '
            'file: it has weights but not the state of a run. Give a '
            'checkpoint that the run wrote; or, to start from these weights, '
            'leave `resume` out.'
        )
    strategy = cfg.get('strategy') or {}
    kind = strategy.get('type') if isinstance(strategy, Mapping) else strategy
    kind = type_name(kind)
    if kind in _OWN_READERS and loads and not trusted:
        raise ValueError(
            f'`strategy.type` is {kind!r}, whose engine reads checkpoints '
            'by itself and runs code from them. If they are your own, set '
            '`trusted=True` at the top level of the config.'
        )
