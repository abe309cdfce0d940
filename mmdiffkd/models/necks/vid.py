"""The mean of variational information distillation."""

from torch import Tensor, nn
from torch.nn import functional as F

from mmdiffkd.registry import MODELS

from .aligned import Aligned
from .base import DistillNeck


@MODELS.register_module()
class VIDNeck(DistillNeck):
    """Predict the mean of the teacher's map from the student's.

    Three 1x1 convolutions without biases, ReLU between them. The larger of
    the two maps, be it the teacher's, is first averaged to the smaller one's
    size, so that a distiller hands both on as they are (``resizes``). The
    variances belong to :class:`VIDLoss`. On CUDA, PyTorch has no
    deterministic gradient of that averaging, which matters where the
    student's map is the larger one.

    Args:
        student_channels (int, optional): Channels of the student's map. A
            distiller fills in None; standing alone it has to be given.
            Defaults to None.
        teacher_channels (int, optional): Likewise for the teacher's; also
            the width of the layers between. Defaults to None.
        init_cfg (dict, optional): Initialisation. Defaults to None,
            PyTorch's.

    Raises:
        ValueError: If channels are missing or not positive.

    Source: Ahn et al., "Variational Information Distillation for Knowledge
    Transfer" (2019); the layers are those of the public benchmark code.
    """

    feature = 'map'
    resizes = True

    def __init__(
        self,
        student_channels: int | None = None,
        teacher_channels: int | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.set_channels(student_channels, teacher_channels)
        self.mean = nn.Sequential(
            nn.Conv2d(student_channels, teacher_channels, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(teacher_channels, teacher_channels, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(teacher_channels, teacher_channels, 1, bias=False),
        )

    def forward(self, student: Tensor, teacher: Tensor) -> Aligned:
        """Predict the mean.

        Args:
            student (Tensor): (B, student_channels, h, w).
            teacher (Tensor): (B, teacher_channels, H, W).

        Returns:
            Aligned: The mean and the detached teacher, both
            (B, teacher_channels, min(h, H), min(w, W)); no losses, no
            metrics.

        Raises:
            ValueError: If a tensor is no map of the announced channels.
        """
        self.check(student, teacher)
        size = [
            min(s, t) for s, t in zip(student.shape[2:], teacher.shape[2:])
        ]
        mean = self.mean(_pooled(student, size))
        return Aligned(mean, _pooled(teacher.detach(), size), {}, {})


def _pooled(feature: Tensor, size: list[int]) -> Tensor:
    if list(feature.shape[2:]) == size:
        return feature
    return F.adaptive_avg_pool2d(feature, size)
