"""Knowledge distillation, decoupled into target and other classes."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mmdiffkd.registry import MODELS

from .base import DistillLoss


@MODELS.register_module()
class DKDLoss(DistillLoss):
    """``tau^2 * (alpha * TCKD + beta * NCKD)``.

    TCKD is the divergence KL(teacher || student) of how probable the true
    class is against all others together; NCKD that of the distributions
    over the other classes alone. All probabilities are softened by tau.
    Names and defaults are those of mmrazor's loss.

    The authors' configurations take alpha = 1; on CIFAR-100 tau = 4 with
    beta = 2 (ResNet-56 to 20, 110 to 32), 6 (WRN-40-2 to 16-2 and 40-1,
    VGG-13 to VGG-8 and MobileNetV2) or 8 (ResNet-32x4 to 8x4, all pairs to
    ShuffleNets, ResNet-50 to MobileNetV2); on ImageNet tau = 1 with
    beta = 0.5 (ResNet-34 to 18) or 2 (ResNet-50 to MobileNetV1). Their
    warm-up, 20 epochs on CIFAR-100, is the entry's ``schedule``.

    Args:
        tau (float): Temperature. Defaults to 1.0.
        alpha (float): Weight of TCKD. Defaults to 1.0.
        beta (float): Weight of NCKD. Defaults to 1.0.
        reduction (str): 'batchmean', the mean over samples, or 'sum'. With
            'mean', mmrazor sums over samples. Defaults to 'batchmean'.
        loss_weight (float): Factor of the loss. Defaults to 1.0.

    Raises:
        ValueError: If tau is not positive, or the reduction not one of those
            above.

    Source: Zhao et al., "Decoupled Knowledge Distillation" (2022), and its
    released code.
    """

    over_classes = True
    activation = 'softmax'
    feature = 'vector'

    def __init__(
        self,
        tau: float = 1.0,
        alpha: float = 1.0,
        beta: float = 1.0,
        reduction: str = 'batchmean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(loss_weight)
        if tau <= 0:
            raise ValueError(f'tau={tau} must be above 0')
        if reduction not in ('batchmean', 'sum'):
            raise ValueError(
                f'reduction={reduction!r} is not taken: use '
                "reduction='batchmean', the mean over samples as in the "
                "paper, or 'sum', which is what mmrazor computes for 'mean' "
                "and 'none'"
            )
        self.tau = tau
        self.alpha = alpha
        self.beta = beta
        self.reduction = reduction

    def distance(
        self, preds_S: Tensor, preds_T: Tensor, gt_labels: Tensor
    ) -> Tensor:
        """Compare two tensors of logits.

        Args:
            preds_S (Tensor): The student's, (B, C), two classes or more.
            preds_T (Tensor): The teacher's, of the same shape.
            gt_labels (Tensor): The true classes, integers (B,).

        Returns:
            Tensor: A scalar, without ``loss_weight``.

        Raises:
            ValueError: If the shapes differ or are not as above.
        """
        target = gt_labels.reshape(-1, 1)
        pairs = zip(
            self._decouple(preds_S, target), self._decouple(preds_T, target)
        )
        tckd, nckd = (
            F.kl_div(student, teacher, reduction='sum', log_target=True)
            for student, teacher in pairs
        )
        loss = self.tau**2 * (self.alpha * tckd + self.beta * nckd)
        if self.reduction == 'batchmean':
            loss = loss / len(preds_S)
        return loss

    def _decouple(
        self, logits: Tensor, target: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logarithms of (true class, others together), and of the others.

        Logarithms throughout: where a network is certain, the probabilities
        of the other classes would round to 0.
        """
        classes = torch.arange(logits.shape[1], device=logits.device)
        is_target = classes == target
        logits = logits / self.tau
        log_p = F.log_softmax(logits, dim=1)
        log_rest = log_p.masked_fill(is_target, -torch.inf).logsumexp(1)
        binary = torch.cat([log_p.gather(1, target), log_rest[:, None]], dim=1)
        others = logits.masked_fill(is_target, -torch.inf)
        # The true class gets a constant, which adds nothing to a divergence.
        others = F.log_softmax(others, dim=1).masked_fill(is_target, 0)
        return binary, others
