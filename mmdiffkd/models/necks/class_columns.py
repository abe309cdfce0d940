"""Of predictions for every class, those for each row's own."""

from torch import Tensor

from mmdiffkd.registry import MODELS

from .aligned import Aligned
from .base import DistillNeck, check_channel_arguments


@MODELS.register_module()
class ClassColumnsNeck(DistillNeck):
    """Pick the columns of each row's class; rows of no class become 0.

    A detector's second stage regresses a box for every class, or one for all
    of them. Either side may do either: of (n, classes * columns) the columns
    of the row's class are taken, (n, columns) is taken as it is. Rows whose
    label is no class, the background, are 0 on both sides, so that they
    neither count nor learn. A mean over all rows is then the sum over those
    with a class by the number of all rows, as in the detector's own
    regression loss.

    Args:
        student_channels (int, optional): Columns of the student's tensor. A
            distiller fills in None; standing alone it has to be given.
            Defaults to None.
        teacher_channels (int, optional): Likewise for the teacher's.
            Defaults to None.
        columns (int): Columns a class, 4 for a box. Defaults to 4.
        num_classes (int, optional): The number of classes, without
            background. Defaults to None: read off the wider of the two
            tensors, which has to be given where both have one box for all
            classes.
        init_cfg (dict, optional): Initialisation. Defaults to None; nothing
            is trained.

    Raises:
        ValueError: If channels are missing, or a side has neither
            ``columns`` nor ``num_classes * columns`` of them.
    """

    feature = 'vector'

    def __init__(
        self,
        student_channels: int | None = None,
        teacher_channels: int | None = None,
        columns: int = 4,
        num_classes: int | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.set_channels(student_channels, teacher_channels)
        check_channel_arguments(columns=columns)
        widest = max(student_channels, teacher_channels)
        if num_classes is None:
            if widest == columns:
                raise ValueError(
                    f'student and teacher have {columns} columns for all '
                    'classes, from which their number, the label of the '
                    'background, cannot be read: give num_classes'
                )
            num_classes = widest // columns
        for side, channels in (
            ('student', student_channels),
            ('teacher', teacher_channels),
        ):
            if channels not in (columns, num_classes * columns):
                raise ValueError(
                    f'{side}_channels={channels} is neither columns='
                    f'{columns} nor {num_classes} classes of {columns}: tap '
                    'a layer that regresses, of networks for the same '
                    'classes'
                )
        self.columns = columns
        self.num_classes = num_classes

    def forward(
        self, student: Tensor, teacher: Tensor, roi_labels: Tensor
    ) -> Aligned:
        """Pick.

        Args:
            student (Tensor): (n, student_channels).
            teacher (Tensor): (n, teacher_channels).
            roi_labels (Tensor): Class indices (n,); what is not from 0 to
                ``num_classes - 1`` is background.

        Returns:
            Aligned: Two tensors (n, columns), the teacher's detached; no
            losses, no metrics.

        Raises:
            ValueError: If a tensor is no vector of the announced channels.
        """
        self.check(student, teacher)
        last = self.num_classes - 1
        background = (roi_labels < 0) | (roi_labels > last)
        index = roi_labels.clamp(0, last)[:, None, None]
        index = index.expand(-1, 1, self.columns)

        def pick(tensor: Tensor) -> Tensor:
            if tensor.shape[1] != self.columns:
                classes = tensor.unflatten(1, (-1, self.columns))
                tensor = classes.gather(1, index).squeeze(1)
            return tensor.masked_fill(background[:, None], 0)

        return Aligned(pick(student), pick(teacher.detach()), {}, {})
