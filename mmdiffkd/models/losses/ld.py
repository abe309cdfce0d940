"""Localisation distillation of detectors that predict distributions."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mmdiffkd.registry import MODELS

from .base import DistillLoss
from .operands import check_groups


def inside_boxes(
    boxes: Sequence[Tensor],
    image: tuple[int, int],
    map_size: tuple[int, int],
) -> Tensor:
    """Which positions of a map have their centre in a box.

    The map covers the whole image, so that the centre of position (y, x) is
    ``((y + 0.5) * height / H, (x + 0.5) * width / W)``.

    Args:
        boxes (Sequence[Tensor]): B tensors (n, 4), x1 y1 x2 y2 in pixels; n
            may be 0.
        image (tuple[int, int]): Height and width of the image in pixels,
            with padding.
        map_size (tuple[int, int]): H and W.

    Returns:
        Tensor: Of type bool, (B, H, W).
    """
    device = boxes[0].device
    y, x = (
        (torch.arange(n, device=device) + 0.5) * (pixels / n)
        for n, pixels in zip(map_size, image)
    )
    inside = []
    for box in boxes:
        x1, y1, x2, y2 = box.unsqueeze(-1).unbind(1)
        rows, columns = (y1 < y) & (y < y2), (x1 < x) & (x < x2)
        inside.append((rows[:, :, None] & columns[:, None]).any(0))
    return torch.stack(inside)


@MODELS.register_module()
class LDLoss(DistillLoss):
    """Compare the distributions of a box's sides over their bins.

    ``tau^2 * KL(softmax(teacher / tau) || softmax(student / tau))``, divided
    by the number of bins, is averaged over the sides of a box and over
    positions: a mean over bins, as in the released code and in mmdet's
    ``KnowledgeDistillationKLDivLoss``, is smaller than the divergence by the
    number of bins (17 in GFL). Each side's bins follow one another on the
    channels.

    The positions are those whose centre lies in a ground-truth box
    (``region='boxes'``). The mean is over those of the batch of one process;
    the loss is 0 if there is none. GFL trains its distributions in boxes
    alone; elsewhere a teacher's mean little.

    What differs from the paper: a distiller does not know which anchors the
    head assigns to objects. The released code takes these alone, weighs each
    by the student's largest class score, and takes the sum over positions
    and images, not the mean. It has a second term on a further region around
    objects, and a third on classes; neither is here (for classes see
    :class:`BinaryKLDivergence`). So the published weight belongs to a sum:
    here the same weight counts less, by about the number of assigned
    positions of a level. Compare the value with the student's own losses,
    and raise the weight.

    In mmdet's GFL head, ``bbox_head.gfl_reg`` is read before a learned
    factor a level. What the head decodes is behind it: tap
    ``[f'bbox_head.scales.{i}' for i in range(5)]``.

    Args:
        tau (float): Temperature. Defaults to 10.0, which is published.
        groups (int): The number of sides. Defaults to 4.
        region (str): 'boxes', or 'all' positions, which needs no boxes.
            Defaults to 'boxes'.
        loss_weight (float): Factor of the loss. Defaults to 0.25, which is
            published; see above.

    Attributes:
        supplied (tuple[str, ...]): What the configuration needs of what a
            distiller can supply.

    Raises:
        ValueError: If tau is not positive, groups no positive integer, or
            the region unknown.

    Source: Zheng et al., "Localization Distillation for Dense Object
    Detection" (2022), and its released code.
    """

    activation = 'softmax'
    feature = 'map'

    def __init__(
        self,
        tau: float = 10.0,
        groups: int = 4,
        region: str = 'boxes',
        loss_weight: float = 0.25,
    ) -> None:
        super().__init__(loss_weight)
        if tau <= 0:
            raise ValueError(f'tau={tau} must be above 0')
        check_groups(groups)
        if region not in ('boxes', 'all'):
            raise ValueError(f"region={region!r} must be 'boxes' or 'all'")
        self.tau = tau
        self.groups = groups
        self.region = region
        self.supplied = ()
        if region == 'boxes':
            self.supplied = 'gt_bboxes', 'batch_input_shape'

    def distance(
        self,
        preds_S: Tensor,
        preds_T: Tensor,
        gt_bboxes: Sequence[Tensor] | None = None,
        batch_input_shape: tuple[int, int] | None = None,
    ) -> Tensor:
        """Compare two maps of distributions.

        Args:
            preds_S (Tensor): The student's logits, (B, groups * bins, H, W).
            preds_T (Tensor): The teacher's, of the same shape.
            gt_bboxes (Sequence[Tensor], optional): B tensors (n, 4), x1 y1
                x2 y2 in pixels of the padded input, for ``region='boxes'``;
                n may be 0. Defaults to None.
            batch_input_shape (tuple[int, int], optional): Height and width
                of the input with padding, likewise. Defaults to None.

        Returns:
            Tensor: A scalar, without ``loss_weight``.

        Raises:
            ValueError: If what ``region='boxes'`` needs is missing.
        """
        student, teacher = (
            F.log_softmax(x.unflatten(1, (self.groups, -1)) / self.tau, dim=2)
            for x in (preds_S, preds_T.detach())
        )
        terms = F.kl_div(student, teacher, reduction='none', log_target=True)
        terms = self.tau**2 * terms.mean(dim=(1, 2))
        if self.region == 'all':
            return terms.mean()
        if gt_bboxes is None or batch_input_shape is None:
            raise ValueError(
                "region='boxes' needs gt_bboxes and batch_input_shape; "
                "region='all' does not"
            )
        counted = inside_boxes(gt_bboxes, batch_input_shape, terms.shape[1:])
        counted = counted.to(terms.dtype)
        return (terms * counted).sum() / counted.sum().clamp(min=1)
