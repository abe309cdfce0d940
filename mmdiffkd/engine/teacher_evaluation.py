"""The figures of teachers on the recipe's validation data, before training."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from mmengine.dist import all_gather_object, is_distributed
from mmengine.runner import Runner
from torch import nn

from mmdiffkd.models.distillers import Distiller, Entry, FrozenTeacher
from mmdiffkd.models.distillers.context import task_of
from mmdiffkd.models.distillers.heads import head_of
from mmdiffkd.utils import class_names
from mmdiffkd.utils.progress import track
from mmdiffkd.utils.randomness import isolated_randomness

#: Where models keep their number of classes; the first one found counts. Of
#: the heads of a cascade, the last one predicts.
_CLASS_COUNTS = (
    # Panoptic models: things and stuff.
    'num_classes',
    'head.num_classes',
    'roi_head.bbox_head.num_classes',
    'bbox_head.num_classes',
    'decode_head.num_classes',
    'mask_head.num_classes',
    'rpn_head.num_classes',
    # Models of timm and of Hugging Face in mmpretrain's wrappers.
    'model.num_classes',
    'model.config.num_labels',
    # VGG and AlexNet keep the last layer of a classifier.
    'backbone.num_classes',
)


def evaluate_teacher(runner: Runner, distiller: Distiller) -> None:
    """Log how good each teacher is on the recipe's validation data.

    A random teacher is left out. Where the figures would mean nothing (see
    :func:`why_not_evaluated`), one line of the log gives the reason. If the
    evaluation fails, one warning names the error, and training goes on. If it
    fails on one of several processes, it ends on all of them.

    It draws no random number that training would draw.

    Args:
        runner (Runner): A runner whose config has ``val_dataloader`` and
            ``val_evaluator``.
        distiller (Distiller): Its model.

    Raises:
        RuntimeError: If after a failure a CUDA device cannot compute any
            more.
    """
    for teacher in distiller.teachers.values():
        if not teacher.is_random:
            _evaluate_one(runner, distiller.student, teacher)


def _evaluate_one(
    runner: Runner, student: nn.Module, teacher: FrozenTeacher
) -> None:
    meta = getattr(runner.val_dataloader.dataset, 'metainfo', None)
    name = f'The {teacher.label} {type(teacher.network).__name__}'
    reason = why_not_evaluated(teacher, student, meta)
    if reason is not None:
        runner.logger.info(f'{name} is not evaluated: {reason}')
        return
    spelled = _other_names(teacher.classes, class_names(meta))
    if spelled is not None:
        runner.logger.info(
            f'{name} is evaluated, although {spelled} If they are other '
            'classes, its figures mean nothing.'
        )
    if teacher.input_size is not None:
        runner.logger.info(
            f'{name} is evaluated on images of the size of the validation '
            f'data, not of its `input_size` {teacher.input_size}.'
        )
    with isolated_randomness(), torch.no_grad():
        metrics, error = _evaluate(teacher, runner)
    if error is not None:
        runner.logger.warning(
            f'The evaluation of the {teacher.label} failed: {error}. Training '
            "goes on without the teacher's figures."
        )
        return
    numbers = {k: float(v) for k, v in metrics.items() if _is_number(v)}
    figures = ', '.join(
        f'{k}: {numbers[k]:.4f}' if k in numbers else f'{k}: {v}'
        for k, v in metrics.items()
    )
    runner.logger.info(
        f'{teacher.label.capitalize()} on the validation data: '
        + (figures or 'the evaluator gives no figures')
    )
    runner.visualizer.add_scalars(
        {f'{teacher.key}/{k}': v for k, v in numbers.items()}, step=0
    )


def why_not_evaluated(
    teacher: FrozenTeacher,
    student: nn.Module,
    dataset_meta: object = None,
) -> str | None:
    """Why an evaluation of the teacher on the student's data means nothing.

    Only what is certain counts. If a model does not tell its number of
    classes, or checkpoint or data do not name theirs, they are taken to
    agree.

    Args:
        teacher (FrozenTeacher): The teacher, with its weights.
        student (nn.Module): The student.
        dataset_meta (object, optional): ``metainfo`` of the data. Defaults
            to None.

    Returns:
        str or None: The reason, in which "it" is the teacher; None if there
        is none.
    """
    network = teacher.network
    name = type(student).__name__
    student_task, task = task_of(student), task_of(network)
    student_count, count = count_classes(student), count_classes(network)
    if not hasattr(network, 'val_step'):
        return 'it is no model of an OpenMMLab package, which evaluators read.'
    if getattr(network, 'head', network) is None or count == 0:
        return 'it has no head that predicts.'
    if None not in (student_task, task) and student_task != task:
        return (
            f'it is a model for {task}, the student {name} is one for '
            f'{student_task}.'
        )
    if None not in (student_count, count) and student_count != count:
        return (
            f'it has {count} classes, the student {name} has {student_count}.'
        )
    theirs, ours = teacher.classes, class_names(dataset_meta)
    reason = _other_names(theirs, ours)
    if reason and (
        len(theirs) != len(ours) or _at_other_indices(theirs, ours)
    ):
        return reason
    return None


def check_classes(runner: Runner, distiller: Distiller) -> None:
    """See that entries over classes compare the same classes.

    Names may be spelled otherwise, so that other names are a warning alone.

    Args:
        runner (Runner): A runner with training data.
        distiller (Distiller): Its model.

    Raises:
        ValueError: If the teacher has classes of the training data at other
            indices.
    """
    meta = getattr(runner.train_dataloader.dataset, 'metainfo', None)
    ours = class_names(meta)
    for name, teacher in distiller.teachers.items():
        reason = _other_names(teacher.classes, ours)
        keys = [
            f'`distill.{entry.name}`'
            for entry in distiller.distill.values()
            if reason is not None
            and name in entry.teachers
            and entry.weight != 0
            and _compares_classes(entry, distiller.student, len(ours))
        ]
        if not keys:
            continue
        text = (
            f'{", ".join(keys)}: classes are compared with the '
            f'{teacher.label}, but {reason}'
        )
        if _at_other_indices(teacher.classes, ours):
            raise ValueError(
                f'{text} Give the data set the order of the teacher by '
                '`metainfo`, or train the teacher on these data.'
            )
        runner.logger.warning(text)


def _compares_classes(entry: Entry, student: nn.Module, count: int) -> bool:
    """Whether an entry takes the teacher's classes for those of the data."""
    asked = {name for part in entry.parts for name in part.asks_for}
    if 'gt_labels' in asked and asked & {'teacher_head', 'teacher_logits'}:
        return True
    # A neck that makes logits does so with the teacher's head on both sides.
    over_classes = (
        entry.spec.loss.cls.over_classes and entry.spec.compares_logits
    )
    for level in entry.levels:
        channels = level.shapes[0][1]
        head = head_of(student, level.names[0], channels)
        of_classes = over_classes if head is None else head.kind == 'classes'
        # Of several anchors, or with the background; not objectness.
        if of_classes and 0 in (channels % count, channels % (count + 1)):
            return True
    return False


def count_classes(network: nn.Module) -> int | None:
    """The classes that a model predicts; None if it does not tell."""
    for path in _CLASS_COUNTS:
        found = network
        for name in path.split('.'):
            if isinstance(found, nn.ModuleList):
                found = found[-1]
            found = getattr(found, name, None)
        if isinstance(found, int) and found >= 0:
            return found
    return None


def _other_names(
    theirs: list[str] | None, ours: list[str] | None
) -> str | None:
    """How the classes of a checkpoint differ from those of the data."""
    if not theirs or not ours:
        return None
    if len(theirs) != len(ours):
        return (
            f'its checkpoint names {len(theirs)} classes, the data have '
            f'{len(ours)}.'
        )
    for index, names in enumerate(zip(theirs, ours)):
        if len(set(map(_plain, names))) > 1:
            return (
                f'its classes have other names. Class {index} is '
                f'{names[0]!r} in its checkpoint and {names[1]!r} in the '
                'data. A loss over classes needs the same classes in the '
                'same order.'
            )
    return None


def _at_other_indices(theirs: list[str], ours: list[str]) -> bool:
    """Whether a name is there twice, but not at the same index."""
    indices = {_plain(name): index for index, name in enumerate(theirs)}
    return any(
        indices.get(_plain(name), index) != index
        for index, name in enumerate(ours)
    )


def _plain(name: str) -> str:
    return name.strip().casefold()


def _is_number(value: object) -> bool:
    """Whether a metric is one number, not a list of them or a text."""
    return isinstance(value, int | float) or (
        getattr(value, 'ndim', None) == 0
    )


def _evaluate(
    teacher: FrozenTeacher, runner: Runner
) -> tuple[dict, str | None]:
    """The metrics, or the first error of a process, alike on all of them."""
    errors: list[str] = []
    metrics = {}
    with _recorded(errors):
        # A loader of our own: the runner's, once iterated, shifts its stream.
        loader = Runner.build_dataloader(
            runner.cfg.val_dataloader.copy(), seed=runner.seed
        )
        evaluator = runner.build_evaluator(runner.cfg.val_evaluator)
        evaluator.dataset_meta = getattr(loader.dataset, 'metainfo', None)
        for batch in track(loader, f'Evaluation of the {teacher.label}'):
            evaluator.process(
                data_samples=teacher.network.val_step(batch), data_batch=batch
            )
    # The metrics gather: a process that failed would keep the others waiting.
    error = _first_anywhere(errors)
    if error is not None:
        return metrics, error
    for metric in evaluator.metrics:
        # It runs on the main process, while the others wait for its result.
        metric.compute_metrics = _recording(metric.compute_metrics, errors)
    # What else fails here may fail on one process alone, in the middle of an
    # exchange: then the run has to end.
    with nullcontext() if is_distributed() else _recorded(errors):
        metrics = evaluator.evaluate(len(loader.dataset))
    return metrics, _first_anywhere(errors)


@contextmanager
def _recorded(errors: list[str]) -> Iterator[None]:
    """Turn an exception into a line of ``errors``."""
    try:
        yield
    except Exception as error:
        if torch.cuda.is_initialized():
            # Memory that ran out is free again; after other errors of the
            # device nothing works, and this says so.
            torch.cuda.synchronize()
        parts = type(error).__name__, str(error)
        errors.append(': '.join(filter(None, parts)))


def _recording(compute: Callable, errors: list[str]) -> Callable:
    def recording(results: list) -> dict:
        with _recorded(errors):
            return compute(results)
        return {}

    return recording


def _first_anywhere(errors: list[str]) -> str | None:
    """The first error of any process."""
    gathered = [e for each in all_gather_object(errors) for e in each]
    return gathered[0] if gathered else None
