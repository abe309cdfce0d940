"""Two-stage heads, whose tensors have a row for each box, not each image."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .taps import Tap, TapError

ROI_HEAD = 'roi_head'
#: What one pass of a RoI head over boxes runs, besides its box heads.
_ON_BOXES = ('bbox_head', 'bbox_roi_extractor', 'shared_head')


def box_head_of(tap: str) -> str | None:
    """The box head with which a tap runs.

    Args:
        tap (str): A tap, as written in the config.

    Returns:
        str | None: ``'roi_head.bbox_head'``, in a cascade with the stage's
        number behind it; None for a tap that is not in a RoI head.

    Raises:
        TapError: If the tap is in a part of a RoI head that does not run on
            the boxes of the box head.
    """
    path = Tap(tap).path
    root, *parts = path.split('.')
    if root != ROI_HEAD:
        return None
    if not parts or parts[0] not in _ON_BOXES:
        raise TapError(
            f'tap {tap!r} is in a part of the RoI head that does not run on '
            'the boxes that are sampled for the box head. Tap a module of '
            "'roi_head.bbox_head', for instance 'roi_head.bbox_head.fc_reg', "
            "in a cascade 'roi_head.bbox_head.0.fc_reg'."
        )
    stage = [p for p in parts[1:2] if p.isdigit()]
    return '.'.join([ROI_HEAD, 'bbox_head', *stage])


def box_heads_of(
    name: str,
    student_at: Sequence[str],
    teacher_at: Sequence[str],
    teacher_head: str | None,
) -> tuple[str, str] | None:
    """The student's and the teacher's box head that an entry reads.

    Args:
        name (str): The entry's name.
        student_at (Sequence[str]): The student's taps.
        teacher_at (Sequence[str]): The teacher's.
        teacher_head (str, optional): The teacher's module that is asked for.

    Returns:
        tuple[str, str] | None: None if no tap is in a RoI head.

    Raises:
        ValueError: If rows would be compared that do not belong together:
            those of boxes and of images, or of two stages.
    """
    student = {box_head_of(tap) for tap in student_at}
    teacher = {
        box_head_of(tap)
        for tap in (*teacher_at, teacher_head)
        if tap is not None
    }
    if student | teacher == {None}:
        return None
    if len(student) > 1 or len(teacher) > 1 or None in student | teacher:
        raise ValueError(
            f'`distill.{name}` reads '
            + ', '.join(dict.fromkeys([*student_at, *teacher_at]))
            + (f' and {teacher_head}' if teacher_head else '')
            + '. In a RoI head there is a row for each box, elsewhere for '
            'each image, and each stage of a cascade has boxes of its own. '
            'Give an entry taps of one box head in the student and of one in '
            "the teacher, for instance student_at='roi_head.bbox_head."
            "fc_reg', teacher_at='roi_head.bbox_head.0.fc_reg'."
        )
    return student.pop(), teacher.pop()


def pair_box_heads(
    pairs: Mapping[str, tuple[str, str] | None],
) -> dict[str, str]:
    """On which of the student's boxes each of the teacher's box heads runs.

    Args:
        pairs (Mapping): What :func:`box_heads_of` gives, by entry.

    Returns:
        dict[str, str]: The student's box head by the teacher's.

    Raises:
        ValueError: If one head would have to run on two sets of boxes.
    """
    boxes_of: dict[str, str] = {}
    for name, pair in pairs.items():
        if pair is None:
            continue
        student, teacher = pair
        if boxes_of.setdefault(teacher, student) != student:
            raise ValueError(
                f"`distill.{name}` compares the teacher's {teacher!r} with "
                f"the student's {student!r}, another entry with "
                f'{boxes_of[teacher]!r}. It runs once a step, on one set of '
                'boxes. Leave one of the entries out.'
            )
    return boxes_of


def whole_images(inputs: Tensor) -> Tensor:
    """A box an image, as large as the image.

    Args:
        inputs (Tensor): Images (B, C, H, W).

    Returns:
        Tensor: (B, 5): the image's index, then x1 y1 x2 y2.
    """
    count, height, width = len(inputs), *inputs.shape[-2:]
    boxes = torch.zeros(count, 5, device=inputs.device)
    boxes[:, 0] = torch.arange(count, device=inputs.device)
    boxes[:, 3], boxes[:, 4] = width, height
    return boxes


def run_on_boxes(
    network: nn.Module, head: str, features: Sequence[Tensor], boxes: Tensor
) -> None:
    """Run a box head, with its RoI extractor, so that the taps record.

    Args:
        network (nn.Module): A two-stage detector of mmdet.
        head (str): Path of the box head.
        features (Sequence[Tensor]): The feature pyramid.
        boxes (Tensor): (n, 5): the image's index, then x1 y1 x2 y2 in
            pixels.
    """
    stage = head.rpartition('.')[2]
    stages = (int(stage),) if stage.isdigit() else ()
    # mmcv's pooling misreads maps in another layout (channels last).
    features = [feature.contiguous() for feature in features]
    network.get_submodule(ROI_HEAD)._bbox_forward(*stages, features, boxes)


class Sampled(NamedTuple):
    """The boxes on which a box head computed its loss.

    Attributes:
        boxes (Tensor): (n, 5): the image's index, then x1 y1 x2 y2.
        labels (Tensor or None): Class indices (n,), background being the
            number of classes. None if the head computed no loss over
            classes.
    """

    boxes: Tensor
    labels: Tensor | None


class _BoxHead:
    """Records the boxes and labels of a box head by forward hooks.

    Like taps, the hooks stay registered and are switched on and off.
    """

    def __init__(self, network: nn.Module, head: str) -> None:
        self.on = False
        self.clear()
        extractor = head.replace('bbox_head', 'bbox_roi_extractor')
        box_head = network.get_submodule(head)
        for module, hook in (
            (network.get_submodule(extractor), self._on_extraction),
            (box_head, self._on_head),
            (getattr(box_head, 'loss_cls', None), self._on_loss),
        ):
            if isinstance(module, nn.Module):
                module.register_forward_pre_hook(hook, with_kwargs=True)

    def clear(self) -> None:
        self._extracted: Tensor | None = None
        self.boxes: Tensor | None = None
        self.labels: Tensor | None = None

    def _on_extraction(
        self, module: nn.Module, args: tuple, kwargs: dict
    ) -> None:
        if self.on:
            self._extracted = kwargs['rois'] if len(args) < 2 else args[1]

    def _on_head(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        # Later extractions may be a mask head's.
        if self.on:
            self.boxes = self._extracted

    def _on_loss(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if self.on and len(args) > 1:
            self.labels = args[1]


class SampledBoxes:
    """What a student's RoI head samples in a step, and its classes.

    Args:
        network (nn.Module): The student. Its forward hooks are the only
            thing that changes.
        heads (Iterable[str]): Paths of its box heads to listen to.
    """

    def __init__(self, network: nn.Module, heads: Iterable[str]) -> None:
        self._heads = {
            head: _BoxHead(network, head) for head in dict.fromkeys(heads)
        }

    @contextmanager
    def record(self) -> Iterator[dict[str, Sampled]]:
        """Record inside the block.

        Yields:
            dict[str, Sampled]: Filled in when the block ends, by box head;
            without those that did not run.
        """
        found: dict[str, Sampled] = {}
        for head in self._heads.values():
            head.clear()
            head.on = True
        try:
            yield found
            for path, head in self._heads.items():
                if head.boxes is not None:
                    labels = head.labels
                    if labels is None and len(head.boxes) == 0:
                        labels = head.boxes.new_zeros(0, dtype=torch.long)
                    found[path] = Sampled(head.boxes, labels)
        finally:
            for head in self._heads.values():
                head.on = False
                head.clear()
