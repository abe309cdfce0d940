"""Knowledge review: every level is compared with help of the deeper ones."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdiffkd.registry import MODELS

from .aligned import Aligned
from .base import DistillNeck, check_batch_statistics, check_channel_arguments
from .pooling import average

MAX_MID_CHANNELS = 512


class AttentionFusion(nn.Module):
    """Merge a level with what the deeper levels left, by attention.

    Args:
        in_channels (int): Channels of the student's map.
        mid_channels (int): Channels inside, and of what is passed on.
        out_channels (int): Channels of the teacher's map.
        deepest (bool): Whether there is nothing deeper to merge with.

    Source: ReviewKD, "ABF"; the layers and their initialisation
    are the released code's.
    """

    def __init__(
        self,
        in_channels: int,
        mid_channels: int,
        out_channels: int,
        deepest: bool,
    ) -> None:
        super().__init__()
        self.reduction = nn.Sequential(
            nn.Conv2d(in_channels, mid_channels, 1, bias=False),
            nn.BatchNorm2d(mid_channels),
        )
        self.attention = None
        if not deepest:
            self.attention = nn.Sequential(
                nn.Conv2d(2 * mid_channels, 2, 1), nn.Sigmoid()
            )
        self.output = nn.Sequential(
            nn.Conv2d(mid_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        for convolution in (self.reduction[0], self.output[0]):
            nn.init.kaiming_uniform_(convolution.weight, a=1)

    def forward(
        self, student: Tensor, deeper: Tensor | None, size: torch.Size
    ) -> tuple[Tensor, Tensor]:
        """Merge.

        Args:
            student (Tensor): The student's map, (B, in_channels, h, w).
            deeper (Tensor, optional): What the deeper level passed on,
                (B, mid_channels, ...); None at the deepest.
            size (torch.Size): Height and width of the teacher's map.

        Returns:
            tuple[Tensor, Tensor]: What is compared with the teacher,
            (B, out_channels, H, W), and what is passed on to the next
            level, (B, mid_channels, H, W).
        """
        merged = self.reduction(student)
        if self.attention is not None:
            deeper = _resized(deeper, merged.shape[2:])
            weights = self.attention(torch.cat([merged, deeper], dim=1))
            merged = merged * weights[:, :1] + deeper * weights[:, 1:]
        merged = _resized(merged, size)
        return self.output(merged), merged


@MODELS.register_module()
class ReviewKDNeck(DistillNeck):
    """Compare each level of the teacher with the student's up to the last.

    From the deepest level to the shallowest, the student's map is reduced to
    ``mid_channels``, merged by attention with what the deeper levels left,
    brought to the teacher's size and channels, and compared, by
    :class:`HCLLoss` in the paper. Sizes are changed by the nearest
    neighbour. It sees all levels at once (``joint``); all layers are trained
    by the distance at their own and the shallower levels. Batch norm sees the
    batch of one process.

    The paper compares what the teacher's blocks compute *before* their last
    ReLU: tap that activation's input, ``backbone.layer3.1.relu@input[-1]``
    say. The last call of a shared ReLU counts.

    Args:
        student_channels (Sequence[int], optional): Channels of the student's
            levels, shallow to deep. A distiller fills in None; standing
            alone it has to be given. Defaults to None.
        teacher_channels (Sequence[int], optional): Likewise for the
            teacher's. Defaults to None.
        mid_channels (int, optional): Width inside. Defaults to None: the
            channels of the student's last level, 512 at most.
        pooled (bool): Whether a further level, the deepest, compares the
            last maps behind ReLU, averaged over positions. Networks with
            layers between their last stage and pooling need another tap for
            that level, on what is pooled: set ``pooled=False`` and add a tap
            of vectors (B, C) at the end, ``neck`` say. Defaults to True.
        init_cfg (dict, optional): Initialisation. Defaults to None: that of
            the released code.

    Raises:
        ValueError: If channels are missing or not positive, or differ in
            number.

    Source: Chen et al., "Distilling Knowledge via Knowledge Review" (2021),
    and its released code.
    """

    joint = True

    def __init__(
        self,
        student_channels: Sequence[int] | None = None,
        teacher_channels: Sequence[int] | None = None,
        mid_channels: int | None = None,
        pooled: bool = True,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        for name, channels in (
            ('student_channels', student_channels),
            ('teacher_channels', teacher_channels),
        ):
            levels = enumerate(channels or [None])
            check_channel_arguments(
                **{f'{name}[{i}]': value for i, value in levels}
            )
        if len(student_channels) != len(teacher_channels):
            raise ValueError(
                f'student_channels={list(student_channels)} and '
                f'teacher_channels={list(teacher_channels)} differ in '
                'number: give one of each for every level'
            )
        self.student_channels = list(student_channels)
        self.teacher_channels = list(teacher_channels)
        self.pooled = pooled
        if mid_channels is None:
            mid_channels = min(MAX_MID_CHANNELS, student_channels[-1])
        check_channel_arguments(mid_channels=mid_channels)
        levels = list(zip(self.student_channels, self.teacher_channels))
        if pooled:
            levels.append(levels[-1])
        self.fusions = nn.ModuleList(
            AttentionFusion(s, mid_channels, t, deepest=i == len(levels) - 1)
            for i, (s, t) in enumerate(levels)
        )

    def forward(
        self, students: list[Tensor], teachers: list[Tensor]
    ) -> Aligned:
        """Review.

        Args:
            students (list[Tensor]): The student's levels, shallow to deep:
                maps (B, C, h, w), or vectors (B, C), which are maps of 1x1.
            teachers (list[Tensor]): The teacher's, in the same order and of
                any sizes.

        Returns:
            Aligned: Two lists of maps, shallow to deep, one pair for each
            level and, if ``pooled``, another; no losses, no metrics.

        Raises:
            ValueError: If the tensors are not as announced, or batch norm
                cannot be trained on them.
        """
        students = self._levels('student', students, self.student_channels)
        teachers = self._levels('teacher', teachers, self.teacher_channels)
        outputs: list[Tensor] = []
        passed = None
        for fusion, student, teacher in zip(
            reversed(self.fusions), reversed(students), reversed(teachers)
        ):
            output, passed = fusion(student, passed, teacher.shape[2:])
            outputs.append(output)
        targets = [teacher.detach() for teacher in teachers]
        return Aligned(outputs[::-1], targets, {}, {})

    def _levels(
        self, side: str, tensors: list[Tensor], channels: list[int]
    ) -> list[Tensor]:
        """All levels of one network as maps, the pooled one included."""
        if len(tensors) != len(channels):
            raise ValueError(
                f'{len(tensors)} tensors of the {side} for '
                f'{side}_channels={channels}: give one for each level'
            )
        levels = []
        for tensor, expected in zip(tensors, channels):
            self.check_side(side, tensor, expected)
            levels.append(_as_map(tensor))
        if self.pooled:
            levels.append(_as_map(average(F.relu(levels[-1]))))
        if self.training:
            for level in levels:
                check_batch_statistics(side, level)
        return levels


def _as_map(tensor: Tensor) -> Tensor:
    return tensor[..., None, None] if tensor.dim() == 2 else tensor


def _resized(feature: Tensor, size: torch.Size) -> Tensor:
    if feature.shape[2:] == size:
        return feature
    return F.interpolate(feature, size, mode='nearest')
