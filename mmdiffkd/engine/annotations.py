"""Whether a batch has the annotations that losses ask for."""

from collections.abc import Mapping

from mmengine.structures import BaseDataElement

from mmdiffkd.models.distillers import Distiller
from mmdiffkd.models.distillers.context import task_of

#: The tasks whose losses ask for annotations.
_LABELLED = 'classification', 'detection', 'retrieval', 'segmentation'
_ANNOTATIONS = {'gt_labels', 'gt_bboxes'}


def check_annotations(distiller: Distiller, batch: object) -> None:
    """See that a batch has annotations, if a weighted loss asks for them.

    Args:
        distiller (Distiller): The model.
        batch (dict or object): A batch of its training data. What is no dict
            of ``inputs`` passes, and so does a batch of which one sample has
            an annotation.

    Raises:
        ValueError: If no sample of the batch has an annotation.
    """
    if not isinstance(batch, Mapping) or 'inputs' not in batch:
        return
    samples = batch.get('data_samples')
    if not _is_unlabelled(samples):
        return
    start = 'The first batch of `train_dataloader` has no annotations, but '
    task = distiller.student_task
    if task.ever_active and task_of(distiller.student) in _LABELLED:
        raise ValueError(
            f'{start}`model.task_weight` is {task.weight}, and the losses of '
            f'the student {type(distiller.student).__name__} ask for them. '
            'Set `model.task_weight=0` to distil without labels, or let data '
            'set and pipeline give annotations (`LoadAnnotations`, '
            '`with_label=True`).'
        )
    for name, entry in distiller.distill.items():
        for part in entry.parts if entry.ever_active else ():
            if asked := _ANNOTATIONS & set(part.asks_for):
                raise ValueError(
                    f'{start}`distill.{name}` is active, whose '
                    f'{type(part).__name__} asks for `{min(asked)}`. Take a '
                    'loss or neck without labels, for instance '
                    "dict(type='KLDivergence') on logits or "
                    "dict(type='MSELoss') on features, or let data set and "
                    'pipeline give annotations.'
                )


def _is_unlabelled(samples: object) -> bool:
    """Whether samples are known to hold no annotation."""
    if samples is None:
        return True
    return (
        isinstance(samples, list | tuple)
        and all(isinstance(each, BaseDataElement) for each in samples)
        and not any(map(_holds_data, samples))
    )


def _holds_data(element: BaseDataElement) -> bool:
    """Whether an element has data besides its meta information."""
    return any(
        _holds_data(value) if isinstance(value, BaseDataElement) else True
        for value in element.values()
    )
