"""Masked generative distillation: hide a part, generate the whole."""

import torch
from torch import Tensor, nn

from mmdiffkd.registry import MODELS

from .aligned import Aligned
from .base import DistillNeck


@MODELS.register_module()
class MGDNeck(DistillNeck):
    """Mask the student's map at random and generate the teacher's from it.

    A 1x1 convolution where the channels differ, the mask, then a 3x3
    convolution, ReLU and another 3x3 convolution. All of it is trained by
    the distance that follows, :class:`MGDLoss` in the paper. Each process
    draws a mask of its own.

    Args:
        student_channels (int, optional): Channels of the student's map. A
            distiller fills in None; standing alone it has to be given.
            Defaults to None.
        teacher_channels (int, optional): Likewise for the teacher's.
            Defaults to None.
        lambda_mgd (float): The share that is hidden, 0 or more and less
            than 1. Defaults to 0.65.
        mask_on_channel (bool): Hide whole channels, as the paper does for
            classification, rather than positions. Defaults to False.
        init_cfg (dict, optional): Initialisation. Defaults to None,
            PyTorch's.

    Raises:
        ValueError: If channels are missing or not positive, or
            ``lambda_mgd`` is out of range.

    Source: Yang et al., "Masked Generative Distillation" (2022); the
    names are those of mmrazor's ``MGDConnector``.
    """

    feature = 'map'

    def __init__(
        self,
        student_channels: int | None = None,
        teacher_channels: int | None = None,
        lambda_mgd: float = 0.65,
        mask_on_channel: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if not 0 <= lambda_mgd < 1:
            raise ValueError(
                f'lambda_mgd={lambda_mgd} is the share that is hidden: use 0 '
                '(nothing) or more, and less than 1'
            )
        self.set_channels(student_channels, teacher_channels)
        self.lambda_mgd = lambda_mgd
        self.mask_on_channel = mask_on_channel
        self.align = nn.Identity()
        if student_channels != teacher_channels:
            self.align = nn.Conv2d(student_channels, teacher_channels, 1)
        self.generation = nn.Sequential(
            nn.Conv2d(teacher_channels, teacher_channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(teacher_channels, teacher_channels, 3, padding=1),
        )

    def forward(
        self, student: Tensor, teacher: Tensor, mask: Tensor | None = None
    ) -> Aligned:
        """Mask and generate.

        Args:
            student (Tensor): (B, student_channels, H, W).
            teacher (Tensor): (B, teacher_channels, H, W).
            mask (Tensor, optional): 0 where hidden, 1 elsewhere, as
                :meth:`draw` makes it. Defaults to None, drawn from PyTorch's
                default generator.

        Returns:
            Aligned: The generated map and the detached teacher, both
            (B, teacher_channels, H, W); no losses, no metrics.

        Raises:
            ValueError: If a tensor is no map of the announced channels.
        """
        self.check(student, teacher)
        if mask is None:
            mask = self.draw(student, teacher)['mask']
        generated = self.generation(self.align(student) * mask)
        return Aligned(generated, teacher.detach(), {}, {})

    def draw(
        self,
        student: Tensor,
        teacher: Tensor,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Draw the mask.

        Args:
            student (Tensor): The student's tensor.
            teacher (Tensor): The teacher's.
            generator (torch.Generator, optional): Source of randomness; on
                the tensors' device nothing is copied. Defaults to None,
                PyTorch's default generator.

        Returns:
            dict[str, Tensor]: ``mask`` of shape (B, 1, H, W), or
            (B, teacher_channels, 1, 1) with ``mask_on_channel``, of the
            student's dtype.
        """
        shape = (len(student), 1, *student.shape[2:])
        if self.mask_on_channel:
            shape = (len(student), self.teacher_channels, 1, 1)
        uniform = torch.rand(
            shape,
            generator=generator,
            device=generator.device if generator else student.device,
        ).to(student.device)
        return {'mask': (uniform >= self.lambda_mgd).to(student.dtype)}
