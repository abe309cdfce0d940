"""What distillation needs of a run: schedule, log, the teacher's figure."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from mmengine.hooks import Hook, LoggerHook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner
from torch import Tensor

from mmdiffkd.models.distillers import Distiller
from mmdiffkd.models.distillers.scheduled import check_trains
from mmdiffkd.registry import HOOKS
from mmdiffkd.utils import DISTILL_PREFIX
from mmdiffkd.utils.naming import type_name
from mmdiffkd.utils.progress import track
from mmdiffkd.utils.randomness import isolated_randomness
from mmdiffkd.utils.safe_loader import guard_run
from mmdiffkd.visualization import denoising_panel

from .annotations import check_annotations
from .nonfinite_hook import NonFiniteHook
from .other_teachers import check_other_teachers
from .student_recipe import write_student_recipe
from .teacher_evaluation import check_classes, evaluate_teacher

#: The values that the student's own task logs, in MMEngine's message hub.
_TASK_VALUES = 'task_values'
_CONSTRUCTORS = 'DefaultOptimWrapperConstructor', 'OptimWrapperConstructor'


@HOOKS.register_module()
class DistillHook(Hook):
    """Runs what a distiller needs during training.

    - Before training it evaluates the teacher once, on the recipe's
      validation data with the recipe's evaluator, so that a wrong or
      unloaded teacher is seen at once. A teacher without head, of another
      task or of other classes is not evaluated, and a line of the log says
      why. Nor is a random teacher. A resumed run skips this.
    - It writes ``student.py``, the recipe of the plain student, into the work
      directory. Inferencers take it with any checkpoint of the run.
    - It tells necks and losses that ask for it how long the training data
      are (for memory banks). It shows the teacher's features to losses that
      ask for a pass over the data. That pass is skipped on resume.
    - It brings scheduled weights up to date before every step.
    - It sees that the first batch has the annotations that the losses ask
      for.
    - It logs the necks' metrics (the mean of gamma, say), averaged on the
      device between two lines of the log.
    - It draws a denoising panel of a few validation images. Panels go to the
      recipe's visualizer, one for each entry whose neck denoises maps.
    - It looks at the loss between the backward pass and the optimizer's
      step, and stops the run where the loss is not finite, see
      :class:`~mmdiffkd.engine.nonfinite_hook.NonFiniteHook`.
    - When a run starts, it makes MMEngine read checkpoints without running
      code from them, see :func:`~mmdiffkd.utils.safe_loader.guard_run`.

    It draws no random number that training would draw.

    Args:
        evaluate_teacher (bool): Whether to evaluate the teacher. Defaults to
            True.
        panel_interval (int): Draw a panel every so many epochs (iterations
            in an iteration-based loop); 0 draws none. Defaults to 0.
        panel_images (int): The number of images of a panel. Defaults to 4.
        on_nonfinite (str): What to do where a loss is not finite,
            ``'stop'`` or ``'skip'``. Defaults to ``'stop'``.
        max_skipped (int): How many iterations may be skipped in a row.
            Defaults to 10.
    """

    priority = 'NORMAL'

    def __init__(
        self,
        evaluate_teacher: bool = True,
        panel_interval: int = 0,
        panel_images: int = 4,
        on_nonfinite: str = 'stop',
        max_skipped: int = 10,
    ) -> None:
        for key, value, least in (
            ('panel_interval', panel_interval, 0),
            ('panel_images', panel_images, 1),
        ):
            if not isinstance(value, int) or value < least:
                raise ValueError(
                    f'`DistillHook.{key}` is {value!r}. Use an integer of '
                    f'{least} or more.'
                )
        self._nonfinite: Hook = NonFiniteHook(on_nonfinite, max_skipped)
        self.evaluate_teacher = evaluate_teacher
        self.panel_interval = panel_interval
        self.panel_images = panel_images
        self._sums: dict[str, Tensor | float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)
        self._off: set[str] = set()
        self._allocated = False
        self._checked = False
        self._task_is_off = False

    def before_run(self, runner: Runner) -> None:
        """See that model and optimizer are a distiller's; read safely.

        MMEngine reads checkpoints after this.

        Raises:
            TypeError: If the model is no distiller.
            ValueError: If a hook or a loop belongs to a model with a student
                and a teacher of its own, or another optimizer-wrapper
                constructor would give student and necks rates that nobody
                chose.
        """
        if not isinstance(_distiller(runner), Distiller):
            raise TypeError(
                'DistillHook belongs to a mmdiffkd.Distiller, but the model '
                f'is a {type(_distiller(runner)).__name__}. Remove '
                '`default_hooks.distill` from a plain recipe.'
            )
        check_other_teachers(runner)
        guard_run(runner.cfg)
        config = runner.cfg.get('optim_wrapper') or {}
        constructor = config.get('constructor') or _CONSTRUCTORS[0]
        known = type_name(constructor) in _CONSTRUCTORS
        if runner.cfg.get('train_cfg') and not known:
            raise ValueError(
                f'`optim_wrapper.constructor` is {constructor!r}, which does '
                'not know a distiller and would give wrong learning rates. '
                "Set it to 'mmdiffkd.OptimWrapperConstructor', and "
                '`optim_wrapper.paramwise_cfg.student_constructor` to '
                f'{constructor!r}.'
            )
        # Evaluation needs no training set, and a second call must not
        # clear what was learned.
        if isinstance(runner._train_loop, BaseLoop) and not self._allocated:
            _allocate(runner)
            self._allocated = True

    def before_train(self, runner: Runner) -> None:
        """Check the batches, prepare the losses, evaluate the teacher.

        The plain recipe is written once the checks are passed.

        Raises:
            ValueError: If a batch of one image awaits a neck that cannot
                take it, a schedule counts epochs that never come, nothing is
                trained at the end, or a loss over classes meets a teacher
                with another order of classes.
        """
        _check_small_batches(runner)
        distiller = _distiller(runner)
        _check_schedules(runner, distiller)
        check_classes(runner, distiller)
        if distiller.student_task.weight == 0 and runner.val_loop is not None:
            runner.logger.info(
                'The student is evaluated, because the config has a '
                '`val_dataloader`, although `model.task_weight` is 0. What '
                f'nothing trains: {_untrained_modules(distiller)}. To leave '
                'the evaluation out, set `val_dataloader`, `val_cfg` and '
                '`val_evaluator` to None.'
            )
        write_student_recipe(runner)
        if runner.iter == 0:
            _prepare(runner)
        if (
            self.evaluate_teacher
            and runner.iter == 0
            and runner.cfg.get('val_dataloader') is not None
            and runner.cfg.get('val_evaluator') is not None
        ):
            evaluate_teacher(runner, distiller)
        if any(isinstance(hook, NonFiniteHook) for hook in runner.hooks):
            # The recipe has its own.
            self._nonfinite = Hook()
        self._nonfinite.before_train(runner)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None
    ) -> None:
        """Bring scheduled weights up to date."""
        distiller = _distiller(runner)
        distiller.set_progress(runner.epoch, runner.iter)
        if not self._checked:
            check_annotations(distiller, data_batch)
            self._checked = True
        off = {n for n, d in distiller.distill.items() if not d.active}
        for name in sorted(off - self._off):
            runner.logger.info(f'distill.{name} is off from here on.')
        self._off = off
        self._nonfinite.before_train_iter(runner, batch_idx, data_batch)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        """Average the metrics, and log them at the logger's interval.

        Raises:
            NonFiniteLoss: If the loss was not finite.
        """
        self._nonfinite.after_train_iter(
            runner, batch_idx, data_batch, outputs
        )
        self._note_task(runner, outputs or {})
        for key, value in _distiller(runner).metrics.items():
            self._sums[key] = self._sums[key] + value
            self._counts[key] += 1
        if self.end_of_epoch(runner.train_dataloader, batch_idx) or any(
            self.every_n_inner_iters(batch_idx, hook.interval)
            for hook in runner.hooks
            if isinstance(hook, LoggerHook)
        ):
            for key, total in self._sums.items():
                runner.message_hub.update_scalar(
                    f'train/{key}', float(total) / self._counts[key]
                )
            self._sums.clear()
            self._counts.clear()
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            self._maybe_draw(runner, runner.iter + 1)

    def _note_task(self, runner: Runner, outputs: Mapping) -> None:
        """Say when the task goes off or on; its values leave the log."""
        distiller, hub = _distiller(runner), runner.message_hub
        task = distiller.student_task
        if task.always_active:
            return
        if task.active:
            if self._task_is_off:
                runner.logger.info(
                    "The student's own losses are on from here on."
                )
            self._task_is_off = False
            # It is saved, so that a resumed run knows it.
            names = [n for n in outputs if not n.startswith(DISTILL_PREFIX)]
            hub.update_info(_TASK_VALUES, names)
            return
        if self._task_is_off:
            return
        self._task_is_off = True
        for name in set(hub.get_info(_TASK_VALUES, ())) - outputs.keys():
            hub.log_scalars.pop(f'train/{name}', None)
        runner.logger.info(
            "The student's own losses are off from here on. What nothing "
            f'trains now: {_untrained_modules(distiller)}.'
        )

    def after_train_epoch(self, runner: Runner) -> None:
        """Draw a panel, if one is due."""
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            self._maybe_draw(runner, runner.epoch + 1)

    def _maybe_draw(self, runner: Runner, done: int) -> None:
        if runner.val_loop is None or not self.panel_interval:
            return
        if done % self.panel_interval == 0:
            draw_panels(runner, self.panel_images, done)


def draw_panels(runner: Runner, num_images: int, step: int) -> None:
    """Hand a panel of every denoising entry to MMEngine's visualizer.

    Args:
        runner (Runner): A runner whose model is a distiller.
        num_images (int): The number of validation images.
        step (int): The epoch or iteration that the panel belongs to.
    """
    distiller = _distiller(runner)
    with isolated_randomness():
        # Indexed, not iterated, so that its loader's stream stays.
        dataset = runner.val_dataloader.dataset
        # Spread out: data sets of folders have one class after another.
        picks = np.linspace(0, len(dataset) - 1, num_images + 2, dtype=int)
        samples = [dataset[int(i)] for i in picks[1:-1]]
        if not all(isinstance(s['inputs'], Tensor) for s in samples):
            runner.logger.warning(
                'There are no denoising panels: a sample of `val_dataloader` '
                'has other inputs than one image.'
            )
            return
        images = [_picture(sample) for sample in samples]
        batch = {
            'inputs': [sample['inputs'] for sample in samples],
            'data_samples': [sample['data_samples'] for sample in samples],
        }
        inputs = distiller.data_preprocessor(batch, False)['inputs']
        for name, levels in distiller.trajectories(inputs).items():
            for level, rows in enumerate(levels):
                label = f'distill.{name}'
                if len(levels) > 1:
                    label += f'.{level}'
                panel = denoising_panel(images, rows)
                runner.visualizer.add_image(label, panel, step)


def _picture(sample: Mapping) -> np.ndarray:
    """An image as uint8 RGB; a clip's first; one channel in grey."""
    *_, channels, height, width = sample['inputs'].shape
    image = sample['inputs'].reshape(-1, channels, height, width)[0]
    image = image.permute(1, 2, 0).numpy()
    if image.dtype != np.uint8:
        low, high = float(image.min()), float(image.max())
        scaled = (image - low) / max(high - low, 1e-6)
        image = (255 * scaled).astype(np.uint8)
    if channels < 3:
        return image[..., [0, 0, 0]]
    # mmcv reads files as BGR; what a data set holds itself (CIFAR) is RGB.
    image = image[..., :3]
    return image[..., ::-1] if 'img_path' in sample['data_samples'] else image


def _distiller(runner: Runner) -> torch.nn.Module:
    model = runner.model
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def _allocate(runner: Runner) -> None:
    distiller = _distiller(runner)
    if not distiller.needs_allocation:
        return
    dataset = runner.train_dataloader.dataset
    inner = dataset
    while hasattr(inner, 'dataset'):
        inner = inner.dataset
    if hasattr(inner, 'datasets'):
        raise ValueError(
            '`train_dataloader.dataset` joins several data sets, whose '
            'samples have the same indices, so that a memory bank would mix '
            'them up. Use one data set.'
        )
    try:
        labels = _classes_of(inner)
    except (KeyError, ValueError) as error:
        for name, entry in distiller.distill.items():
            for part in entry.parts:
                if part.overrides('allocate') and 'gt_labels' in part.asks_for:
                    raise ValueError(
                        f'`distill.{name}`: {type(part).__name__} asks for '
                        'the classes of the whole training set, but '
                        '`train_dataloader.dataset`, a '
                        f'{type(inner).__name__}, has no get_gt_labels() '
                        'that gives one class an image. Use a data set of '
                        'mmpretrain with one label an image, or another '
                        'loss or neck.'
                    ) from error
        labels = None
    distiller.allocate(len(inner), labels)


def _classes_of(dataset: torch.utils.data.Dataset) -> Tensor:
    """The class of each sample, integers (N,).

    Raises:
        KeyError: If a sample has no label.
        ValueError: If the data set does not tell labels, or a sample has
            another number of labels than one.
    """
    if not hasattr(dataset, 'get_gt_labels'):
        raise ValueError('no get_gt_labels()')
    # Lists of different lengths are a ValueError of NumPy.
    labels = np.asarray(dataset.get_gt_labels())
    if labels.ndim != 1 or labels.dtype.kind not in 'iu':
        raise ValueError(
            f'labels of shape {labels.shape} and type {labels.dtype}'
        )
    return torch.as_tensor(labels)


def _prepare(runner: Runner) -> None:
    distiller = _distiller(runner)
    if not distiller.needs_preparation:
        return
    # Every process passes over its share; a loss gathers what it needs.
    loader = runner.cfg.train_dataloader.copy()
    loader.pop('batch_sampler', None)
    loader.sampler = dict(type='DefaultSampler', shuffle=False)
    with isolated_randomness():
        batches = Runner.build_dataloader(loader, seed=runner.seed)
        distiller.prepare(
            lambda: (
                distiller.data_preprocessor(batch, False)['inputs']
                for batch in track(
                    batches, 'Pass of the teacher over the training data'
                )
            )
        )


def _check_schedules(runner: Runner, distiller: Distiller) -> None:
    for key, weight in distiller.scheduled.items():
        if (
            weight.schedule.by_epoch
            and not weight.schedule.constant
            and not isinstance(runner.train_loop, EpochBasedTrainLoop)
        ):
            raise ValueError(
                f'`{key}` counts epochs, but the training loop counts '
                'iterations. Set by_epoch=False and give `start`, `warmup` '
                'and `stop` in iterations.'
            )
    if not distiller.student_task.always_active:
        # The distiller has checked the beginning.
        for epoch, iteration in _stops(runner, distiller):
            check_trains(distiller.scheduled, epoch, iteration)


def _stops(runner: Runner, distiller: Distiller) -> Iterator[tuple[int, int]]:
    """The epoch and iteration of each `stop`: where a weight becomes 0."""
    epochs, iterations = runner.max_epochs, runner.max_iters
    length = max(1, iterations // epochs)
    for weight in distiller.scheduled.values():
        stop = weight.schedule.stop
        if stop is None:
            continue
        if weight.schedule.by_epoch and stop < epochs:
            yield stop, stop * length
        elif not weight.schedule.by_epoch and stop < iterations:
            yield stop // length, stop


def _untrained_modules(distiller: Distiller) -> str:
    """The modules of the student that nothing trains now, in words."""
    names = distiller.student_task.untrained(distiller.distill)

    def within(module: torch.nn.Module, path: str) -> list[str]:
        own = {
            f'{path}{name}'
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        if not own & names.keys():
            return []
        if own <= names.keys():
            return [path[:-1]]
        return [
            found
            for name, child in module.named_children()
            for found in within(child, f'{path}{name}.')
        ]

    return ', '.join(within(distiller.student, '')) or 'none of its modules'


def _check_small_batches(runner: Runner) -> None:
    loader = runner.train_dataloader
    batches = loader.batch_sampler
    size = getattr(batches, 'batch_size', None)
    if not isinstance(size, int):
        return
    images = len(loader.sampler)
    # Samplers of iteration-based loops never end, and leave no remainder.
    ends = isinstance(runner.train_loop, EpochBasedTrainLoop)
    lone = ends and not batches.drop_last and images % size == 1
    if size > 1 and not lone:
        return
    try:
        _distiller(runner).check_batch(1)
    except ValueError as error:
        where = (
            '`train_dataloader.batch_size` is 1'
            if size == 1
            else f'the last of the batches of {size} out of {images} images '
            'has 1 image'
        )
        raise ValueError(
            f'{where}, which a neck cannot take: {error} Set '
            '`train_dataloader.drop_last=True` or another `batch_size`.'
        ) from error
