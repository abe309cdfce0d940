"""Checkpoints that are complete or absent, and runs that go on from them."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner, find_latest_checkpoint

from mmdiffkd.utils.checkpoint import is_safetensors

from .atomic_files import (
    ATOMIC,
    AtomicLocalBackend,
    is_complete,
    newest_complete,
    remove_stale,
)
from .exact_resume import ExactResume, check_accumulation, counts_epochs

_WEIGHTS_ALONE = (
    'has weights but not the state of a run; to start from these weights, '
    'give it as `load_from` without `--resume`'
)


class _DeferredRemoval:
    """A storage backend that removes nothing until told to."""

    def __init__(self, backend: object) -> None:
        self.backend = backend
        self.outdated: list[str] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        self.outdated.append(path)

    # Checkpoints of some strategies are folders.
    rmtree = remove

    def flush(self, folder: str, kept: tuple) -> None:
        """Remove what is outdated, except paths written again since.

        A run that goes on in another folder touches nothing of the first.
        """
        for path in self.outdated:
            inside = path == self.backend.join_path(folder, Path(path).name)
            if path in kept or not inside:
                continue
            if self.backend.isdir(path):
                self.backend.rmtree(path)
            elif self.backend.isfile(path):
                self.backend.remove(path)
        self.outdated.clear()


class CheckpointHook(MMEngineCheckpointHook):
    """MMEngine's checkpoint hook, for runs that may be killed at any moment.

    - A checkpoint is written to a temporary file, synced and renamed. Then
      ``last_checkpoint`` is made to point to it. Only then is the file that
      it replaces deleted. After a kill or on a full disk, the previous
      checkpoint and the best one are complete, and ``--resume`` finds them.
      (Local files. Other storage backends write as MMEngine does.)
    - A checkpoint that is incomplete or missing is refused by name. The
      error offers the newest complete one beside it.
    - A checkpoint from within an epoch (``by_epoch=False`` where the loop
      counts epochs) is resumed at the beginning of that epoch, with the
      counters and the learning rates of that moment. MMEngine would train
      for a full epoch from the counters of the checkpoint.

    All other arguments are MMEngine's.

    Args:
        split (Mapping[str, str], optional): Tensors to keep out of the
            ``state_dict`` of a file, as {prefix: key of the file}. Tensors
            whose names begin with the prefix are saved under that key and
            put back on loading. They are not averaged by an ``EMAHook``.
            Defaults to None.
        exact_resume (bool): Make a resumed run train as if it had never
            stopped, bit for bit on a CPU: from the last epoch's end in loops
            that count epochs, from any checkpoint in others. The random
            state of every process is saved. What a sample draws is seeded
            by the run's seed, the visit and the index, so that augmentation
            draws other numbers than without. Defaults to False.
    """

    def __init__(
        self,
        *args,
        split: Mapping[str, str] | None = None,
        exact_resume: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.split = dict(split or {})
        if not isinstance(exact_resume, bool):
            raise ValueError(
                f'`default_hooks.checkpoint.exact_resume` is {exact_resume!r}'
                '. Write True or False.'
            )
        self.exact_resume = ExactResume() if exact_resume else None
        self._source: str | None = None
        self._record: dict | None = None
        self._resumed_record: dict | None = None
        self._epoch_start: dict | None = None

    # Reading.

    def before_run(self, runner: Runner) -> None:
        """Look at the checkpoint to resume from, before anything is loaded.

        Raises:
            ValueError: If it is missing or incomplete.
        """
        if not runner._resume:
            return
        source = runner._load_from
        if isinstance(runner._resume, str):
            source = runner._resume
        elif source is None:
            source = find_latest_checkpoint(runner.work_dir)
        if source is None:
            return
        # An empty source comes from a pointer that is itself broken.
        source = source or str(Path(runner.work_dir) / 'last_checkpoint')
        self._source = source
        if '://' in source or Path(source).is_dir():
            return
        if not Path(source).exists():
            raise ValueError(self._refusal(source, 'is not there'))
        if is_safetensors(source):
            raise ValueError(self._refusal(source, _WEIGHTS_ALONE))
        if not is_complete(source):
            reason = 'is truncated, or is no checkpoint'
            raise ValueError(self._refusal(source, reason))

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Put the split-off tensors back into the state dict.

        Raises:
            ValueError: If a run cannot be resumed from the checkpoint.
        """
        resumed = bool(runner._resume)
        if resumed and not (
            isinstance(checkpoint.get('meta'), Mapping)
            and {'epoch', 'iter'} <= checkpoint['meta'].keys()
            and 'message_hub' in checkpoint
        ):
            raise ValueError(self._refusal(self._source, _WEIGHTS_ALONE))
        for key in self.split.values():
            if key in checkpoint:
                checkpoint['state_dict'].update(checkpoint.pop(key))
        record = checkpoint.pop('exact_resume', None)
        start = checkpoint.pop('epoch_start', None)
        if resumed:
            self._resumed_record = record
        if resumed and start is not None and counts_epochs(runner):
            runner.logger.info(
                f'{self._source} was written within epoch '
                f'{checkpoint["meta"]["epoch"] + 1}, which starts over.'
            )
            checkpoint['meta']['iter'] = start['iter']
            if 'param_schedulers' in checkpoint:
                checkpoint['param_schedulers'] = start['param_schedulers']
            if 'optimizer' in checkpoint:
                checkpoint['optimizer'].update(start['optimizer'])
            if record:
                record['validated'] = True

    def _refusal(self, source: str | None, reason: str) -> str:
        offer = 'Give the complete checkpoint of a run.'
        if source is not None:
            pattern = self.filename_tmpl.format('*')
            other = newest_complete(Path(source).parent, pattern)
            if other is not None and other != Path(source):
                offer = f'The newest complete one there: --resume {other}'
        return f'checkpoint {source!r} {reason}. {offer}'

    # Training.

    def before_train(self, runner: Runner) -> None:
        """Choose how files are written, and restore what a resume needs."""
        folder = self.out_dir or runner.work_dir
        if (
            self.backend_args is None
            and self.file_client_args is None
            and type(get_file_backend(folder)) is LocalBackend
        ):
            self.backend_args = dict(backend=ATOMIC)
        super().before_train(runner)
        self.file_backend = _DeferredRemoval(self.file_backend)
        if is_main_process():
            if self.backend_args == dict(backend=ATOMIC):
                remove_stale(self.out_dir)
            remove_stale(runner.work_dir)
            # What a run was about to remove when it was killed.
            info = runner.message_hub.runtime_info
            self.file_backend.outdated += info.get('outdated_ckpts', [])
            self._remove_outdated()
        if self.exact_resume:
            epochs = counts_epochs(runner)
            check_accumulation(
                runner,
                [len(runner.train_dataloader)]
                if epochs
                else [self.interval, self.save_begin]
                + [runner.train_loop.val_interval] * bool(self.save_best),
            )
            self.exact_resume.start(runner, self._resumed_record)

    def before_train_epoch(self, runner: Runner) -> None:
        """Remember the counters that the epoch starts with."""
        if self.exact_resume:
            self.exact_resume.before_train_epoch(runner)
        if counts_epochs(runner) and not self.by_epoch:
            self._epoch_start = _counters(runner)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        """Save a checkpoint, if one is due."""
        if counts_epochs(runner) and self.end_of_epoch(
            runner.train_dataloader, batch_idx
        ):
            # `after_train_epoch` saves it, with the epoch's final counters.
            return
        super().after_train_iter(runner, batch_idx, data_batch, outputs)

    def after_train_epoch(self, runner: Runner) -> None:
        """Save a checkpoint, if one is due."""
        self._epoch_start = None
        super().after_train_epoch(runner)
        if self.by_epoch or not counts_epochs(runner):
            return
        done = runner.iter - self.save_begin
        if (self.interval > 0 and done >= 0 and done % self.interval == 0) or (
            self.save_last and self.is_last_train_epoch(runner)
        ):
            runner.logger.info(
                f'Saving checkpoint at {runner.iter} iterations'
            )
            meta = dict(epoch=runner.epoch + 1, iter=runner.iter)
            self._save_checkpoint_with_step(runner, runner.iter, meta)

    def before_val(self, runner: Runner) -> None:
        """Keep validation from moving the streams of training."""
        if self.exact_resume:
            self.exact_resume.before_val()

    def after_val(self, runner: Runner) -> None:
        """Put the streams back."""
        if self.exact_resume:
            self.exact_resume.after_val()

    # Writing.

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Move the tensors of ``split`` out of the state dict."""
        for prefix, key in self.split.items():
            moved = _pop(checkpoint['state_dict'], prefix)
            if 'ema_state_dict' in checkpoint:
                # MMEngine's EMA has swapped the two dictionaries. Training
                # goes on from the trained tensors, not the averaged ones.
                moved = _pop(checkpoint['ema_state_dict'], prefix, 'module.')
            checkpoint[key] = moved
        if self._record is not None:
            checkpoint['exact_resume'] = self._record
        if self._epoch_start is not None:
            checkpoint['epoch_start'] = self._epoch_start

    def _save_checkpoint_with_step(
        self, runner: Runner, step: int, meta: dict
    ) -> None:
        """As MMEngine's, but write first, then point, then remove."""
        hub = runner.message_hub
        path = self._path(step)
        if self.max_keep_ckpts > 0 and list(self.keep_ckpt_ids)[-1:] != [step]:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                oldest = self._path(self.keep_ckpt_ids.popleft())
                if is_main_process():
                    self.file_backend.remove(oldest)
            self.keep_ckpt_ids.append(step)
            hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        hub.update_info('outdated_ckpts', list(self.file_backend.outdated))
        hub.update_info('last_ckpt', path)
        if self.exact_resume:
            self._record = self.exact_resume.record(runner)
        runner.save_checkpoint(
            self.out_dir,
            self.filename_tmpl.format(step),
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        self._record = None
        self.last_ckpt = path
        if is_main_process():
            pointer = Path(runner.work_dir) / 'last_checkpoint'
            AtomicLocalBackend().put(path.encode(), pointer)
        self._remove_outdated()

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        if not hasattr(self, 'file_backend'):
            return  # An evaluation without any training.
        super()._save_best_checkpoint(runner, metrics)
        self._remove_outdated()

    def _path(self, step: int) -> str:
        name = self.filename_tmpl.format(step)
        return self.file_backend.join_path(self.out_dir, name)

    def _remove_outdated(self) -> None:
        best = getattr(self, 'best_ckpt_path_dict', {}).values()
        self.file_backend.flush(
            self.out_dir,
            (self.last_ckpt, getattr(self, 'best_ckpt_path', None), *best),
        )


def _pop(state: dict, prefix: str, wrapper: str = '') -> dict:
    """Take the tensors of a prefix out of a state dict."""
    keys = [key for key in state if key.startswith(wrapper + prefix)]
    return {key.removeprefix(wrapper): state.pop(key) for key in keys}


def _counters(runner: Runner) -> dict | None:
    """What an epoch starts with, besides weights."""
    schedulers = runner.param_schedulers or []
    if not isinstance(runner.optim_wrapper, OptimWrapper):
        return None
    state = runner.optim_wrapper.state_dict()
    kept = ('param_groups', 'base_param_settings')
    return {
        'iter': runner.iter,
        'param_schedulers': [deepcopy(s.state_dict()) for s in schedulers],
        'optimizer': deepcopy({k: state[k] for k in kept if k in state}),
    }
