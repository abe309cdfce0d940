"""The projector ensemble: the average of several small projectors."""

from torch import Tensor

from mmdiffkd.registry import MODELS

from ..diffusion.blocks import pointwise
from ..diffusion.precision import at_least_float32
from .aligned import Aligned
from .base import DistillNeck, check_channel_arguments


@MODELS.register_module()
class ProjectorEnsembleNeck(DistillNeck):
    """Average several projections of the student, each ending in a ReLU.

    ``(1 / q) * sum_k ReLU(W_k s + b_k)``. The projectors differ by their
    random initialisation alone; one layer holds them all, whose PyTorch
    initialisation is that of q layers drawn one by one, since it depends on
    the number of inputs. They are trained by the distance that follows,
    :class:`DirectionAlignmentLoss` in the paper's code.

    Args:
        student_channels (int, optional): Channels of the student's tensor.
            A distiller fills in None; standing alone it has to be given.
            Defaults to None.
        teacher_channels (int, optional): Likewise for the teacher's.
            Defaults to None.
        num_projectors (int): q. Defaults to 3.
        feature (str): 'vector' for (B, C), 'map' for (B, C, H, W). Defaults
            to 'vector', the pooled features of the paper's code.
            A distiller reads it off the shape of what is tapped.
        init_cfg (dict, optional): Initialisation. Defaults to None,
            PyTorch's.

    Raises:
        ValueError: If a number is missing or not positive, or ``feature``
            is neither 'map' nor 'vector'.

    Source: Chen et al., "Improved Feature Distillation via Projector
    Ensemble" (2022); q and the initialisation are the released code's.
    """

    def __init__(
        self,
        student_channels: int | None = None,
        teacher_channels: int | None = None,
        num_projectors: int = 3,
        feature: str = 'vector',
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.set_channels(student_channels, teacher_channels)
        check_channel_arguments(num_projectors=num_projectors)
        self.num_projectors = num_projectors
        self.feature = feature
        self.projectors = pointwise(
            student_channels, num_projectors * teacher_channels, feature
        )

    def forward(self, student: Tensor, teacher: Tensor) -> Aligned:
        """Project the student's tensor.

        Args:
            student (Tensor): (B, student_channels) or
                (B, student_channels, H, W).
            teacher (Tensor): (B, teacher_channels) or
                (B, teacher_channels, H, W).

        Returns:
            Aligned: The averaged projections and the detached teacher; no
            losses, no metrics.

        Raises:
            ValueError: If a tensor is not what ``feature`` and the channels
                say.
        """
        self.check(student, teacher)
        projected = at_least_float32(self.projectors(student)).relu()
        ensemble = projected.unflatten(
            1, (self.num_projectors, self.teacher_channels)
        )
        return Aligned(ensemble.mean(dim=1), teacher.detach(), {}, {})
