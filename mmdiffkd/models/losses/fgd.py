"""Focal and global distillation of detectors."""

from collections.abc import Sequence

import torch
from mmengine.model import constant_init, kaiming_init
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from mmdiffkd.registry import MODELS

from .base import DistillLoss
from .operands import check_tensor_channels

# A coordinate that no map has, of boxes that are not there.
_NOWHERE = -1e6


def foreground(
    boxes: Sequence[Tensor],
    sizes: Sequence[tuple[int, int]],
    map_size: tuple[int, int],
) -> Tensor:
    """Where objects are: 1 / area of the smallest box at each position.

    A box, scaled to the map, covers the positions from its rounded-down left
    and top to its rounded-up right and bottom, ends included, and its area is
    their number.

    Args:
        boxes (Sequence[Tensor]): B tensors (n, 4), x1 y1 x2 y2 in pixels.
        sizes (Sequence[tuple[int, int]]): Height and width of the B images,
            in pixels, that become the map's.
        map_size (tuple[int, int]): H and W.

    Returns:
        Tensor: (B, H, W), in the boxes' floating-point type; 0 where no box
        is.
    """
    scaled = [
        torch.cat(
            [
                box[:, 0::2] * (map_size[1] / width),
                box[:, 1::2] * (map_size[0] / height),
            ],
            dim=1,
        )
        for box, (height, width) in zip(boxes, sizes)
    ]
    padded = pad_sequence(scaled, batch_first=True, padding_value=_NOWHERE)
    # One more, so that there is a box where there is none.
    padded = F.pad(padded, (0, 0, 0, 1), value=_NOWHERE)
    x1, x2, y1, y2 = padded.unsqueeze(-1).unbind(2)
    (left, top), (right, bottom) = (
        (x1.floor(), y1.floor()),
        (x2.ceil(), y2.ceil()),
    )
    rows, columns = (
        torch.arange(n, device=padded.device, dtype=padded.dtype)
        for n in map_size
    )
    in_rows = (rows >= top) & (rows <= bottom)
    in_columns = (columns >= left) & (columns <= right)
    # A box upside down covers nothing, and must not divide by 0 either.
    columns_of_box = (right + 1 - left).clamp(min=1)
    rows_of_box = (bottom + 1 - top).clamp(min=1)
    inverse_area = 1 / (columns_of_box * rows_of_box)
    weighted_rows = in_rows * inverse_area
    covered = weighted_rows.unsqueeze(-1) * in_columns.unsqueeze(-2)
    return covered.amax(dim=1)


class GlobalContext(nn.Module):
    """Add to each position what the whole map says.

    An attention over positions pools the map to a vector, two linear layers
    with layer norm between transform it, and it is added everywhere. It
    begins as the identity.

    Args:
        channels (int): C of the map.

    Source: Cao et al., "GCNet" (2019), with addition as fusion.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = max(1, channels // 2)
        self.attention = nn.Conv2d(channels, 1, 1)
        self.transform = nn.Sequential(
            nn.Linear(channels, width),
            nn.LayerNorm(width),
            nn.ReLU(inplace=True),
            nn.Linear(width, channels),
        )
        kaiming_init(self.attention, mode='fan_in')
        constant_init(self.transform[-1], val=0)

    def forward(self, feature: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W) of the map's precision."""
        own = feature.to(self.attention.weight.dtype)
        attention = self.attention(own).flatten(2).softmax(dim=2)
        context = self.transform((own.flatten(2) * attention).sum(dim=2))
        return feature + context[..., None, None].to(feature.dtype)


@MODELS.register_module()
class FGDLoss(DistillLoss):
    """Compare maps where objects are, where none are, and in their context.

    Four terms, see :meth:`terms`: the foreground's and the background's
    squared difference, weighted by the teacher's attention to positions and
    channels; the difference of the attentions; and that of the maps after a
    :class:`GlobalContext`, one for the student and one for the teacher, both
    trained here. Sums are over positions and channels, means over samples.

    Boxes are scaled to the map by the size of the padded input, which is what
    the map covers. The released code scales by the image's size without
    padding, which shifts and stretches boxes wherever a batch pads an image;
    ``scale_by='img_shape'`` does as it does.

    Args:
        teacher_channels (int): C of the teacher's map; a distiller fills it
            in.
        temp (float): Temperature of the attentions; the released settings
            are 0.8 for FCOS and 0.5 otherwise. Defaults to 0.5.
        alpha_fgd (float): Weight of the foreground. The defaults of all four
            weights are the released class's; its settings for two-stage
            detectors are a twentieth (docs/losses.md has them). Defaults to
            1e-3.
        beta_fgd (float): Weight of the background. Defaults to 5e-4.
        gamma_fgd (float): Weight of the attentions. Defaults to 1e-3.
        lambda_fgd (float): Weight of the global relation. Defaults to 5e-6.
        scale_by (str): 'batch_input_shape' or 'img_shape', see above.
            Defaults to 'batch_input_shape'.
        loss_weight (float): Factor of the loss. Defaults to 1.0.

    Attributes:
        supplied (tuple[str, ...]): What the configuration needs of what a
            distiller can supply.

    Raises:
        ValueError: If ``temp`` is not positive or ``scale_by`` unknown.

    Source: Yang et al., "Focal and Global Knowledge Distillation for
    Detectors" (2022), and its released code.
    """

    feature = 'map'

    def __init__(
        self,
        teacher_channels: int,
        temp: float = 0.5,
        alpha_fgd: float = 1e-3,
        beta_fgd: float = 5e-4,
        gamma_fgd: float = 1e-3,
        lambda_fgd: float = 5e-6,
        scale_by: str = 'batch_input_shape',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(loss_weight)
        if temp <= 0:
            raise ValueError(f'temp={temp} must be above 0')
        if scale_by not in ('batch_input_shape', 'img_shape'):
            raise ValueError(
                f"scale_by={scale_by!r} must be 'batch_input_shape' or "
                "'img_shape'"
            )
        self.teacher_channels = teacher_channels
        self.temp = temp
        self.weights = {
            'fg': alpha_fgd,
            'bg': beta_fgd,
            'mask': gamma_fgd,
            'rela': lambda_fgd,
        }
        self.scale_by = scale_by
        self.supplied = 'gt_bboxes', scale_by
        self.student_context = GlobalContext(teacher_channels)
        self.teacher_context = GlobalContext(teacher_channels)

    def distance(
        self,
        preds_S: Tensor,
        preds_T: Tensor,
        gt_bboxes: Sequence[Tensor],
        img_shape: Sequence[tuple[int, int]] | None = None,
        batch_input_shape: tuple[int, int] | None = None,
    ) -> Tensor:
        """Compare two maps.

        Args:
            preds_S (Tensor): The student's, (B, C, H, W).
            preds_T (Tensor): The teacher's, of the same shape.
            gt_bboxes (Sequence[Tensor]): B tensors (n, 4), x1 y1 x2 y2 in
                pixels of the padded input; n may be 0.
            img_shape (Sequence[tuple[int, int]], optional): B pairs, height
                and width without padding, for ``scale_by='img_shape'``.
                Defaults to None.
            batch_input_shape (tuple[int, int], optional): Height and width
                with padding, for ``scale_by='batch_input_shape'``.
                Defaults to None.

        Returns:
            Tensor: A scalar, without ``loss_weight``.

        Raises:
            ValueError: If the shapes differ, are not maps, have other
                channels, or the size that scales the boxes is missing.
        """
        if self.scale_by == 'img_shape':
            sizes = img_shape
        else:
            sizes = batch_input_shape and [batch_input_shape] * len(preds_S)
        if sizes is None:
            raise ValueError(
                f'scale_by={self.scale_by!r} needs {self.scale_by}'
            )
        terms = self.terms(preds_S, preds_T, gt_bboxes, sizes)
        return sum(self.weights[name] * term for name, term in terms.items())

    def terms(
        self,
        preds_S: Tensor,
        preds_T: Tensor,
        gt_bboxes: Sequence[Tensor],
        sizes: Sequence[tuple[int, int]],
    ) -> dict[str, Tensor]:
        """The terms without their weights.

        Args:
            preds_S (Tensor): As in :meth:`distance`.
            preds_T (Tensor): Likewise.
            gt_bboxes (Sequence[Tensor]): Likewise.
            sizes (Sequence[tuple[int, int]]): B pairs, the height and width
                that become the map's.

        Returns:
            dict[str, Tensor]: Scalars: ``fg``, the foreground; ``bg``, the
            background; ``mask``, the attentions; ``rela``, the global
            relation.
        """
        check_tensor_channels(preds_T, teacher_channels=self.teacher_channels)
        with torch.autocast(preds_S.device.type, enabled=False):
            boxes = [box.to(preds_T.dtype) for box in gt_bboxes]
            objects = foreground(boxes, sizes, preds_T.shape[-2:])
            empty = (objects == 0).to(objects.dtype)
            empty = empty / empty.sum(dim=(1, 2), keepdim=True).clamp(min=1)

            spatial_S, channel_S = self._attention(preds_S)
            spatial_T, channel_T = self._attention(preds_T)
            difference = (preds_S - preds_T).square()
            focus = (difference * channel_T[..., None, None]).sum(dim=1)
            focus = focus * spatial_T
            contexts = F.mse_loss(
                self.student_context(preds_S),
                self.teacher_context(preds_T),
                reduction='sum',
            )
            sums = {
                'fg': (focus * objects).sum(),
                'bg': (focus * empty).sum(),
                'mask': (channel_S - channel_T).abs().sum()
                + (spatial_S - spatial_T).abs().sum(),
                'rela': contexts,
            }
        return {name: total / len(preds_T) for name, total in sums.items()}

    def _attention(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """To positions (B, H, W) and to channels (B, C), of mean 1."""
        size = feature.abs()
        spatial = size.mean(dim=1).flatten(1) / self.temp
        channel = size.mean(dim=(2, 3)) / self.temp
        spatial = spatial.shape[1] * spatial.softmax(dim=1)
        channel = channel.shape[1] * channel.softmax(dim=1)
        return spatial.unflatten(1, feature.shape[-2:]), channel
