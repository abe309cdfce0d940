"""A linear projection of the student's feature: plain feature distillation."""

from torch import Tensor

from mmdiffkd.registry import MODELS

from ..diffusion.blocks import pointwise
from .aligned import Aligned
from .base import DistillNeck


@MODELS.register_module()
class ProjectionNeck(DistillNeck):
    """Bring the student's feature to the teacher's channels, and no more.

    One 1x1 convolution for maps, one linear layer for vectors, trained by
    the distance that follows. With :class:`MSELoss` this is the plainest
    form of FitNet; on logits (``feature='vector'``, no activation) it is the
    logit projector of Chen et al., "Understanding the Effects of Projectors
    in Knowledge Distillation" (2023).

    Args:
        student_channels (int, optional): Channels of the student's tensor.
            A distiller fills in None; standing alone it has to be given.
            Defaults to None.
        teacher_channels (int, optional): Likewise for the teacher's.
            Defaults to None.
        feature (str): 'map' for (B, C, H, W), 'vector' for (B, C).
            Defaults to 'map'.
            A distiller reads it off the shape of what is tapped.
        init_cfg (dict, optional): Initialisation. Defaults to None,
            PyTorch's.

    Raises:
        ValueError: If channels are missing or not positive, or ``feature``
            is neither 'map' nor 'vector'.

    Source: Romero et al., "FitNets: Hints for Thin Deep Nets" (2015), whose
    regressor is a convolution too.
    """

    def __init__(
        self,
        student_channels: int | None = None,
        teacher_channels: int | None = None,
        feature: str = 'map',
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.set_channels(student_channels, teacher_channels)
        self.feature = feature
        self.student_projection = pointwise(
            student_channels, teacher_channels, feature
        )

    def forward(self, student: Tensor, teacher: Tensor) -> Aligned:
        """Project the student's tensor.

        Args:
            student (Tensor): (B, student_channels, H, W) or
                (B, student_channels).
            teacher (Tensor): (B, teacher_channels, H, W) or
                (B, teacher_channels).

        Returns:
            Aligned: The projected student and the detached teacher; no
            losses, no metrics.

        Raises:
            ValueError: If a tensor is not what ``feature`` and the channels
                say.
        """
        self.check(student, teacher)
        projected = self.student_projection(student)
        return Aligned(projected, teacher.detach(), {}, {})
