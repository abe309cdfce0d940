"""Kullback-Leibler divergence of softened class distributions."""

from torch import Tensor
from torch.nn import functional as F

from mmdiffkd.registry import MODELS

from .base import DistillLoss
from .operands import check_groups


@MODELS.register_module()
class KLDivergence(DistillLoss):
    """``tau^2 * KL(softmax(teacher / tau) || softmax(student / tau))``.

    The factor tau^2 keeps the size of the gradients while tau varies. Names
    and defaults are those of mmrazor's loss. Classes lie on axis 1; each
    sample of a vector, and each position of a map, is one distribution. On
    maps, mmrazor's 'batchmean' is instead the sum over positions, H * W
    times as large.

    With ``groups``, the channels are that many distributions side by side,
    and the index of a channel is ``group * bins + bin``. So lie the bins of
    a box's four sides in GFL (``groups=4``), and the classes of each anchor
    in a dense head with a softmax (``groups`` is the number of anchors).

    Args:
        tau (float): Temperature. Defaults to 1.0.
        reduction (str): 'batchmean' is the mean over all distributions, the
            divergence itself; 'sum' their sum; 'mean' the mean over all
            elements, C times smaller than 'batchmean'.
            Defaults to 'batchmean'.
        loss_weight (float): Factor of the loss. Defaults to 1.0.
        teacher_detach (bool): Whether to keep gradients from the teacher's
            logits. Defaults to True.
        groups (int): How many distributions lie side by side on the
            channels. Defaults to 1.

    Raises:
        ValueError: If tau is not positive, groups no positive integer, or the
            reduction not one of those above ('none' leaves no scalar to
            train on).

    Source: Hinton et al., "Distilling the Knowledge in a Neural Network"
    (2015), section 2; DiffKD, Eq. (1) and (7), with d for logits.
    """

    over_classes = True
    activation = 'softmax'

    def __init__(
        self,
        tau: float = 1.0,
        reduction: str = 'batchmean',
        loss_weight: float = 1.0,
        teacher_detach: bool = True,
        groups: int = 1,
    ) -> None:
        super().__init__(loss_weight)
        if tau <= 0:
            raise ValueError(f'tau={tau} must be above 0')
        check_groups(groups)
        if reduction not in ('batchmean', 'sum', 'mean'):
            raise ValueError(
                f'reduction={reduction!r} leaves no scalar to train on or '
                "is unknown: take 'batchmean', the divergence averaged over "
                "all distributions, or 'sum' or 'mean'"
            )
        self.tau = tau
        self.reduction = reduction
        self.teacher_detach = teacher_detach
        self.groups = groups

    def distance(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Compare two tensors of logits.

        Args:
            preds_S (Tensor): The student's, (B, C) or (B, C, H, W); C is
                ``groups`` times the bins of a distribution.
            preds_T (Tensor): The teacher's, of the same shape.

        Returns:
            Tensor: A scalar, without ``loss_weight``.
        """
        if self.teacher_detach:
            preds_T = preds_T.detach()
        loss = F.kl_div(
            self._log_probabilities(preds_S / self.tau),
            self._log_probabilities(preds_T / self.tau),
            reduction='sum',
            log_target=True,
        )
        if self.reduction == 'batchmean':
            bins = preds_S.shape[1] // self.groups
            loss = loss / (preds_S.numel() // bins)
        elif self.reduction == 'mean':
            loss = loss / preds_S.numel()
        return self.tau**2 * loss

    def _log_probabilities(self, logits: Tensor) -> Tensor:
        bins = logits.unflatten(1, (self.groups, -1)).flatten(0, 1)
        return F.log_softmax(bins, dim=1)
