"""Resuming as if the run had never stopped."""

from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from mmdiffkd.utils.pipelines import transforms_of
from mmdiffkd.utils.randomness import random_state, set_random_state

from .seeded_data import VisitBatches, seed_samples

_SWITCH = '`default_hooks.checkpoint.exact_resume` is True'


class ExactResume:
    """What MMEngine's checkpoints lack for a run to go on exactly.

    :class:`~mmdiffkd.safety.checkpoints.CheckpointHook` calls it.

    - The random state of every process is saved and restored.
    - What a sample draws depends only on the seed, on when it is visited and
      on its index, see :mod:`~mmdiffkd.safety.seeded_data`.
    - Validation moves no random stream. A validation that was due when the
      checkpoint was written runs first, since a scheduler or the best
      checkpoint may depend on it.
    """

    def __init__(self) -> None:
        self._batches: VisitBatches | None = None
        self._before_val: dict | None = None
        self._at_start: dict | None = None

    def record(self, runner: Runner) -> dict:
        """What to put into a checkpoint; every process has to call it."""
        return {
            'random_states': all_gather_object(
                self._before_val or random_state()
            ),
            'sampler_seed': getattr(_sampler(runner), 'seed', None),
            'validated': self._before_val is not None,
        }

    def start(self, runner: Runner, record: dict | None) -> None:
        """Seed the samples and, on resume, restore the random state.

        Args:
            runner (Runner): The runner, before its first iteration.
            record (dict, optional): What :meth:`record` returned, None at
                the start of a run.

        Raises:
            ValueError: If the data cannot be drawn a second time.
        """
        _check_memory(runner.train_dataloader)
        if getattr(runner.train_loop, 'fast_forward_on_resume', False):
            raise ValueError(
                f'{_SWITCH}, but `train_cfg.fast_forward_on_resume` is True, '
                'with which the data start anew. Leave the latter out: '
                'nothing is loaded that is skipped.'
            )
        sampler = _sampler(runner)
        if record and record['sampler_seed'] is not None:
            # Built with this process's seed, before the checkpoint was read.
            sampler.seed = record['sampler_seed']
        self._batches = seed_samples(runner.train_loop, runner.seed)
        iterator = getattr(runner.train_loop, 'dataloader_iterator', None)
        if iterator is not None:
            iterator.skip_iter = self._skip
        if record is None:
            if runner.iter:
                runner.logger.warning(
                    f'{_SWITCH}, but the checkpoint was written without: '
                    'the run is exact from here on only.'
                )
            return
        states = record['random_states']
        if len(states) == get_world_size():
            set_random_state(states[get_rank()])
        else:
            runner.logger.warning(
                f'{_SWITCH}, but the checkpoint was written by '
                f'{len(states)} processes and is read by '
                f'{get_world_size()}: the run goes on with other random '
                'numbers.'
            )
        if not record['validated'] and _validation_is_due(runner):
            runner.logger.info('Running the validation that was due.')
            runner.val_loop.run()
        self._at_start = random_state()

    def before_train_epoch(self, runner: Runner) -> None:
        """Tell the samples which epoch it is."""
        self._batches.epoch = runner.epoch

    def _skip(self, iterations: int) -> None:
        """Replaces MMEngine's ``skip_iter``, which may load what it skips.

        A loop that counts iterations calls it on resume, after the hooks'
        ``before_train_epoch``, which may draw random numbers. In an
        uninterrupted run they drew them before, so the state is restored.
        """
        self._batches.skip(iterations)
        if self._at_start is not None:
            set_random_state(self._at_start)

    def before_val(self) -> None:
        """Save the random state."""
        self._before_val = random_state()

    def after_val(self) -> None:
        """Restore the random state."""
        set_random_state(self._before_val)
        self._before_val = None


def counts_epochs(runner: Runner) -> bool:
    """Whether the training loop counts epochs, not iterations."""
    return isinstance(runner.train_loop, EpochBasedTrainLoop)


def check_accumulation(runner: Runner, saved_at: list[int]) -> None:
    """See that no checkpoint falls between two steps of the optimizer.

    Args:
        runner (Runner): The runner.
        saved_at (list[int]): Numbers of iterations, of which multiples see
            a checkpoint.

    Raises:
        ValueError: If gradients would be pending, which no checkpoint holds.
    """
    count = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
    for iterations in saved_at:
        if iterations > 0 and iterations % count:
            raise ValueError(
                f'{_SWITCH}, but `optim_wrapper.accumulative_counts` is '
                f'{count} and a checkpoint comes every {iterations} '
                'iterations: it would lack the gradients accumulated so far. '
                f'Choose an interval (an epoch, where the loop counts these) '
                f'that is a multiple of {count}.'
            )


def _sampler(runner: Runner) -> object:
    return getattr(runner.train_dataloader.batch_sampler, 'sampler', None)


def _check_memory(loader: DataLoader) -> None:
    for transform in transforms_of(loader.dataset):
        if hasattr(transform, 'results_cache'):
            name = type(transform).__name__
            raise ValueError(
                f'{_SWITCH}, but {name} in the training pipeline keeps '
                'earlier images, which no checkpoint holds. Use '
                f'{name.removeprefix("Cached")} in a MultiImageMixDataset, '
                'or leave `exact_resume` out.'
            )


def _validation_is_due(runner: Runner) -> bool:
    loop = runner.train_loop
    if runner.val_loop is None:
        return False
    loop._decide_current_val_interval()
    done, last = (
        (loop.epoch, loop.max_epochs)
        if counts_epochs(runner)
        else (loop.iter, loop.max_iters)
    )
    return done >= max(loop.val_begin, 1) and (
        done % loop.val_interval == 0 or done == last
    )
