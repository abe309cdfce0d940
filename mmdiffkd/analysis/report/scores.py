"""What networks get right, class by class, in the three tasks.

A score takes predictions one image at a time, and tells in how much two
networks disagree about an image.
"""

import contextlib
import io
import math
from collections import Counter
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
        confusion (Counter): How often a pair of classes, what it is and what
            was predicted, was found; empty if the task has none.
    """

    figure = ''

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = list(classes)
        self.confusion: Counter[tuple[int, int]] = Counter()

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

    def overall(self) -> float | None:
        """The figure of all images together, where it is no mean of these."""
        return None

    @staticmethod
    def disagreement(truth: object, student: object, teacher: object) -> float:
        """How much two predictions differ; 0 if they do not."""
        raise NotImplementedError


class Accuracy(_Score):
    """The share of a class's images that are classified well."""

    figure = 'accuracy'

    def add(
        self, index: int, info: Mapping, sample: BaseDataElement
    ) -> Tensor:
        """Count an image; gives the scores of its classes (classes,)."""
        scores = sample.pred_score.cpu()
        self.confusion[self.truth(info, sample), int(scores.argmax())] += 1
        return scores

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
        hit, truth, _ = _sums(self.confusion)
        return [_share(hit[i], truth[i]) for i in range(len(self.classes))]

    def overall(self) -> float | None:
        """The share of all images that are classified well, in per cent."""
        hit, _, _ = _sums(self.confusion)
        return _share(hit.total(), self.confusion.total())

    @staticmethod
    def disagreement(truth: int, student: Tensor, teacher: Tensor) -> float:
        """How far apart the scores are where they name another class.

        It is the total variation distance, and 1 more where the teacher
        alone is right.
        """
        if student.argmax() == teacher.argmax():
            return 0.0
        right = float(teacher.argmax() == truth)
        return right + (student - teacher).abs().sum().item() / 2


class Overlap(_Score):
    """Intersection over union of a class's pixels."""

    figure = 'IoU'

    def add(
        self, index: int, info: Mapping, sample: BaseDataElement
    ) -> Tensor:
        """Count the pixels of an image; gives the label map (H, W)."""
        predicted = sample.pred_sem_seg.data.squeeze(0).cpu().long()
        truth, count = self.truth(info, sample), len(self.classes)
        # What is no class is not to be counted, as IoUMetric does it.
        counted = truth < count
        pairs = truth[counted] * count + predicted[counted]
        for pair, number in zip(*pairs.unique(return_counts=True)):
            self.confusion[divmod(int(pair), count)] += int(number)
        return predicted.to(torch.int16)

    @staticmethod
    def truth(info: Mapping, sample: BaseDataElement) -> Tensor:
        """The annotated label map (H, W)."""
        return sample.gt_sem_seg.data.squeeze(0).cpu().long()

    def values(self) -> list[float | None]:
        """The IoU of each class in per cent."""
        hit, truth, predicted = _sums(self.confusion)
        return [
            _share(hit[i], truth[i] + predicted[i] - hit[i])
            for i in range(len(self.classes))
        ]

    @staticmethod
    def disagreement(truth: Tensor, student: Tensor, teacher: Tensor) -> float:
        """The share of pixels that differ."""
        return (student != teacher).double().mean().item()


class Precision(_Score):
    """COCO's average precision of a class's boxes, IoU from 0.5 to 0.95."""

    # MMDetection gives three digits of each.
    figure = 'AP (a class rounded to 0.1)'

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


def _sums(confusion: Counter) -> tuple[Counter, Counter, Counter]:
    """By class: what was found, what is there, what was predicted."""
    hit, truth, predicted = Counter(), Counter(), Counter()
    for (there, found), count in confusion.items():
        hit[there] += count * (there == found)
        truth[there] += count
        predicted[found] += count
    return hit, truth, predicted


def _share(part: int, whole: int) -> float | None:
    """In per cent; None of nothing."""
    return 100 * part / whole if whole else None
