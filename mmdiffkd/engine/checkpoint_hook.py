"""Checkpoints that any plain recipe can load, whole or absent."""

import os
from pathlib import Path

from mmengine.fileio import LocalBackend, get_file_backend, register_backend
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.runner import Runner

from mmdiffkd.registry import HOOKS
from mmdiffkd.utils import DISTILL_PREFIX

_ATOMIC = 'mmdiffkd.atomic'
_EMA_PREFIX = 'module.'


class AtomicLocalBackend(LocalBackend):
    """Local files that are either whole or absent."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a temporary file, sync it and rename it.

        Args:
            obj (bytes): The content.
            filepath (str or Path): The file, whose folder is made.
        """
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
        try:
            with temporary.open('wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


register_backend(_ATOMIC, AtomicLocalBackend, force=True)


class _DeferredRemoval:
    """A storage backend that removes nothing until told to."""

    def __init__(self, backend: object) -> None:
        self.backend = backend
        self.outdated: list[tuple] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        self.outdated.append((self.backend.remove, path))

    def rmtree(self, path: str) -> None:
        self.outdated.append((self.backend.rmtree, path))

    def flush(self, kept: tuple) -> None:
        """Remove what is outdated, except paths written again since."""
        for remove, path in self.outdated:
            if path not in kept and self.backend.exists(path):
                remove(path)
        self.outdated.clear()


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """MMEngine's checkpoint hook for a distiller.

    - ``state_dict`` of a checkpoint is the plain student's and loads with
      ``strict=True`` into the plain model; what distillation trains lies in
      ``distill_state_dict``, and is put back on loading.
    - A checkpoint is written to a temporary file beside its place, synced
      and renamed; only then is deleted what it replaces. An interruption
      leaves the previous checkpoint whole. (Local files; other storage
      backends write as MMEngine does.)

    All arguments are MMEngine's.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Move the necks' tensors out of the state dict."""
        trained = _pop(checkpoint['state_dict'])
        if 'ema_state_dict' in checkpoint:
            # MMEngine's EMA has swapped the two dictionaries. Averaged
            # necks are of no use to anyone; the trained ones go on.
            trained = _pop(checkpoint['ema_state_dict'], _EMA_PREFIX)
        checkpoint['distill_state_dict'] = trained

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Put the necks' tensors back into the state dict."""
        if 'distill_state_dict' in checkpoint:
            necks = checkpoint.pop('distill_state_dict')
            checkpoint['state_dict'].update(necks)

    def before_train(self, runner: Runner) -> None:
        """Choose how files are written."""
        folder = self.out_dir or runner.work_dir
        if (
            self.backend_args is None
            and self.file_client_args is None
            and type(get_file_backend(folder)) is LocalBackend
        ):
            self.backend_args = dict(backend=_ATOMIC)
        super().before_train(runner)
        self.file_backend = _DeferredRemoval(self.file_backend)

    def _save_checkpoint_with_step(
        self, runner: Runner, step: int, meta: dict
    ) -> None:
        super()._save_checkpoint_with_step(runner, step, meta)
        self._remove_outdated()

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        super()._save_best_checkpoint(runner, metrics)
        self._remove_outdated()

    def _remove_outdated(self) -> None:
        best = getattr(self, 'best_ckpt_path_dict', {}).values()
        self.file_backend.flush(
            kept=(self.last_ckpt, getattr(self, 'best_ckpt_path', None), *best)
        )


def _pop(state: dict, wrapper: str = '') -> dict:
    """Take what distillation trains out of a state dict."""
    ours = [key for key in state if key.startswith(wrapper + DISTILL_PREFIX)]
    return {key.removeprefix(wrapper): state.pop(key) for key in ours}
