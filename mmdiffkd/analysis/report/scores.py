"""What networks get right, class by class, in the three tasks.

A score takes predictions one image at a time, and tells in how much two
networks disagree about an image.
"""

import contextlib
import io
import math
from collections.abc import Mapping, Sequence

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor
from torchvision.ops import box_iou

#: Boxes of less are taken for no prediction where pictures are concerned.
SURE = 0.3
#: Boxes that overlap by so much (IoU) are the same object.
SAME = 0.5


def score_for(package: str, classes: Sequence[str]) -> '_Score':
    """The score of a package's task.

    Args:
        package (str): ``'mmpretrain'``, ``'mmdet'`` or ``'mmseg'``.
        classes (Sequence[str]): The names of the classes.

    Raises:
        ValueError: If there is none for the package.
    """
    kinds = {'mmpretrain': Accuracy, 'mmdet': Precision, 'mmseg': Overlap}
    if package not in kinds:
        raise ValueError(
            f'the recipe is one of {package!r}. Scores by class are known '
            f'for {", ".join(kinds)}'
        )
    return kinds[package](classes)


class _Score:
    """What the three have in common.

    Attributes:
        figure (str): What it measures of a class.
        confusion (Tensor or None): How often class j was predicted for
            class i, (classes, classes); None if the task has none.
    """

    figure = ''
    confusion: Tensor | None = None

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = list(classes)

    def add(
        self, index: int, info: Mapping, sample: BaseDataElement
    ) -> object:
        """Count a prediction.

        Args:
            index (int): The image's index in the data.
            info (Mapping): What the data set knows of it.
            sample (BaseDataElement): The prediction, with the annotation.

        Returns:
            object: The prediction as :meth:`disagreement` takes it.
        """
        raise NotImplementedError

    def values(self) -> list[float | None]:
        """The figure of each class in per cent; None without any object."""
        raise NotImplementedError

    @staticmethod
    def disagreement(truth: object, student: object, teacher: object) -> float:
        """How much two predictions differ; 0 if they do not."""
        raise NotImplementedError


class Accuracy(_Score):
    """The share of a class's images that are classified well."""

    figure = 'accuracy'

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__(classes)
        self.confusion = _empty(classes)

    def add(self, index: int, info: Mapping, sample: BaseDataElement) -> int:
        """Count an image."""
        predicted = int(sample.pred_score.argmax())
        self.confusion[self.truth(info, sample), predicted] += 1
        return predicted

    @staticmethod
    def truth(info: Mapping, sample: BaseDataElement) -> int:
        """The annotated class."""
        labels = sample.gt_label.reshape(-1)
        if len(labels) != 1:
            raise ValueError(
                f'an image has {len(labels)} labels. Images of one label '
                'each have an accuracy by class'
            )
        return int(labels)

    def values(self) -> list[float | None]:
        """The accuracy of each class in per cent."""
        return _shares(self.confusion.diag(), self.confusion.sum(dim=1))

    @staticmethod
    def disagreement(truth: int, student: int, teacher: int) -> float:
        """2 if the teacher alone is right, 1 if they differ otherwise."""
        return (student != teacher) * (1.0 + (teacher == truth))


class Overlap(_Score):
    """Intersection over union of a class's pixels."""

    figure = 'IoU'

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__(classes)
        self.confusion = _empty(classes)

    def add(
        self, index: int, info: Mapping, sample: BaseDataElement
    ) -> Tensor:
        """Count the pixels of an image."""
        predicted = sample.pred_sem_seg.data.squeeze(0).cpu().long()
        truth, count = self.truth(info, sample), len(self.classes)
        # What is no class is not to be counted, as IoUMetric does it.
        counted = truth < count
        pairs = truth[counted] * count + predicted[counted]
        self.confusion += torch.bincount(pairs, minlength=count**2).view(
            count, count
        )
        return predicted.to(torch.int16)

    @staticmethod
    def truth(info: Mapping, sample: BaseDataElement) -> Tensor:
        """The annotated label map (H, W)."""
        return sample.gt_sem_seg.data.squeeze(0).cpu().long()

    def values(self) -> list[float | None]:
        """The IoU of each class in per cent."""
        hit = self.confusion.diag()
        both = self.confusion.sum(dim=0) + self.confusion.sum(dim=1) - hit
        return _shares(hit, both)

    @staticmethod
    def disagreement(truth: Tensor, student: Tensor, teacher: Tensor) -> float:
        """The share of pixels that differ."""
        return (student != teacher).double().mean().item()


class Precision(_Score):
    """COCO's average precision of a class's boxes, IoU from 0.5 to 0.95."""

    figure = 'AP'

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__(classes)
        from mmdet.evaluation import CocoMetric

        self.metric = CocoMetric(metric='bbox', classwise=True)
        # Two classes may have one name.
        names = [str(index) for index in range(len(classes))]
        self.metric.dataset_meta = dict(classes=names)

    def add(
        self, index: int, info: Mapping, sample: BaseDataElement
    ) -> tuple[Tensor, Tensor]:
        """Keep the boxes of an image."""
        found = sample.pred_instances
        instances = [
            {key: each[key] for key in ('bbox', 'bbox_label', 'ignore_flag')}
            for each in info['instances']
        ]
        self.metric.process(
            {},
            [
                dict(
                    img_id=index,
                    ori_shape=sample.ori_shape,
                    instances=instances,
                    pred_instances=dict(
                        bboxes=found.bboxes,
                        scores=found.scores,
                        labels=found.labels,
                    ),
                )
            ],
        )
        sure = found.scores >= SURE
        return found.bboxes[sure].cpu(), found.labels[sure].cpu()

    @staticmethod
    def truth(info: Mapping, sample: BaseDataElement) -> tuple[Tensor, Tensor]:
        """The annotated boxes (n, 4) and their classes (n,)."""
        instances = info['instances']
        boxes = torch.tensor([each['bbox'] for each in instances])
        labels = torch.tensor([each['bbox_label'] for each in instances])
        return boxes.reshape(-1, 4).float(), labels.long()

    def values(self) -> list[float | None]:
        """The average precision of each class in per cent."""
        with contextlib.redirect_stdout(io.StringIO()):
            metrics = self.metric.compute_metrics(self.metric.results)
        found = [
            # Without any box there are no figures.
            metrics.get(f'{index}_precision', 0.0)
            for index in range(len(self.classes))
        ]
        return [None if math.isnan(v) else 100 * float(v) for v in found]

    @staticmethod
    def disagreement(truth: tuple, student: tuple, teacher: tuple) -> float:
        """How many boxes of either the other one has not."""
        return float(_alone(student, teacher) + _alone(teacher, student))


def _alone(some: tuple[Tensor, Tensor], others: tuple[Tensor, Tensor]) -> int:
    """How many boxes have no counterpart of their class."""
    (boxes, labels), (other_boxes, other_labels) = some, others
    same = box_iou(boxes, other_boxes) >= SAME
    same &= labels[:, None] == other_labels
    return len(boxes) - int(same.any(dim=1).sum())


def _empty(classes: Sequence[str]) -> Tensor:
    return torch.zeros(len(classes), len(classes), dtype=torch.int64)


def _shares(hit: Tensor, total: Tensor) -> list[float | None]:
    return [
        100 * h / t if t else None
        for h, t in zip(hit.tolist(), total.tolist())
    ]
