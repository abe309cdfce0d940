"""FitNet's regressor: the student's hint map becomes the teacher's."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from mmdiffkd.registry import MODELS

from .aligned import Aligned
from .base import DistillNeck, check_batch_statistics


@MODELS.register_module()
class FitNetNeck(DistillNeck):
    """Regress the teacher's map by one convolution, batch norm and ReLU.

    The convolution brings the student's map to the teacher's channels *and*
    size, so that a distiller hands it on as it is (``resizes``):

    - half as high and wide: 3x3, stride 2;
    - twice as high and wide: transposed, 4x4, stride 2;
    - the same size, or smaller by anything else: without padding, of the
      size that leaves the teacher's, which is 1x1 for the same size.

    Images of another size than the layer was chosen for may leave the two
    maps apart; the student's is then resized, and a map smaller than the
    kernel is an error. The teacher's map should not be negative, since the
    student's cannot be. Tap the teacher behind a ReLU. Batch norm sees the
    batch of one process.

    Args:
        student_channels (int, optional): Channels of the student's map. A
            distiller fills in None; standing alone it has to be given.
            Defaults to None.
        teacher_channels (int, optional): Likewise for the teacher's.
            Defaults to None.
        student_size (tuple[int, int], optional): Height and width of the
            student's map, likewise filled in. Defaults to None, the
            teacher's.
        teacher_size (tuple[int, int], optional): Those of the teacher's.
            Defaults to None, the student's.
        init_cfg (dict, optional): Initialisation. Defaults to None,
            PyTorch's.

    Raises:
        ValueError: If channels are missing or not positive, or the teacher's
            map is larger than the student's by anything but a factor of 2.

    Source: Romero et al., "FitNets: Hints for Thin Deep Nets" (2015),
    section 2.2; the layers are those of the public benchmark code, which
    trains in one stage.
    """

    feature = 'map'
    resizes = True

    def __init__(
        self,
        student_channels: int | None = None,
        teacher_channels: int | None = None,
        student_size: Sequence[int] | None = None,
        teacher_size: Sequence[int] | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.set_channels(student_channels, teacher_channels)
        if student_size is None or teacher_size is None:
            student_size = teacher_size = (1, 1)
        self.regressor = nn.Sequential(
            _convolution(
                student_channels,
                teacher_channels,
                tuple(student_size),
                tuple(teacher_size),
            ),
            nn.BatchNorm2d(teacher_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, student: Tensor, teacher: Tensor) -> Aligned:
        """Regress.

        Args:
            student (Tensor): (B, student_channels, h, w).
            teacher (Tensor): (B, teacher_channels, H, W).

        Returns:
            Aligned: The regressed map, (B, teacher_channels, H, W), and the
            detached teacher; no losses, no metrics.

        Raises:
            ValueError: If a tensor is no map of the announced channels, or
                batch norm cannot be trained on it, or the student's map is
                smaller than the kernel.
        """
        self.check(student, teacher)
        if self.training:
            # What batch norm sees has the teacher's size.
            check_batch_statistics('teacher', teacher)
        self._check_size(student)
        regressed = self.regressor(student)
        if regressed.shape[2:] != teacher.shape[2:]:
            regressed = F.interpolate(
                regressed, teacher.shape[2:], mode='bilinear'
            )
        return Aligned(regressed, teacher.detach(), {}, {})

    def _check_size(self, student: Tensor) -> None:
        convolution = self.regressor[0]
        padded = [n + 2 * convolution.padding[0] for n in student.shape[2:]]
        kernel = list(convolution.kernel_size)
        if isinstance(convolution, nn.Conv2d) and any(
            n < k for n, k in zip(padded, kernel)
        ):
            raise ValueError(
                f"the student's map is {tuple(student.shape[2:])}, smaller "
                f"than the regressor's kernel {tuple(kernel)}, which was "
                'chosen for images of another size: set `model.input_size` '
                'to the size that you train with'
            )


def _convolution(
    in_channels: int,
    out_channels: int,
    size: tuple[int, int],
    target: tuple[int, int],
) -> nn.Module:
    """The layer that turns a map of one size into one of another."""
    sides = list(zip(size, target))
    if all(s == 2 * t for s, t in sides):
        return nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
    if all(2 * s == t for s, t in sides):
        return nn.ConvTranspose2d(
            in_channels, out_channels, 4, stride=2, padding=1
        )
    if all(s >= t for s, t in sides):
        kernel = tuple(1 + s - t for s, t in sides)
        return nn.Conv2d(in_channels, out_channels, kernel)
    raise ValueError(
        f'student_size={size}, teacher_size={target}: the regressor enlarges '
        'a map by a factor of 2 or not at all. Tap stages of nearer strides, '
        'or use ProjectionNeck, whose maps are resized'
    )
