"""Kullback-Leibler divergence of a Bernoulli distribution a class."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mmdiffkd.registry import MODELS

from .kl_divergence import KLDivergence


@MODELS.register_module()
class BinaryKLDivergence(KLDivergence):
    """``tau^2 * KL(teacher || student)`` of Bernoulli distributions.

    Each class of each sample of a vector, and of each position of a map, is
    a distribution of its own, with the probability ``sigmoid(logit / tau)``.
    The divergences are summed over classes; one class is enough. This fits
    heads with a sigmoid: several labels an image, dense detectors,
    segmentation with one output channel. The gradient at a logit is
    ``tau * (sigmoid(student / tau) - sigmoid(teacher / tau))``, divided by
    what the reduction divides by.

    With tau = 1 it is the logits term of "Multi-Label Knowledge
    Distillation", whose released code gives it the weight 10 on COCO, beside
    two terms on embeddings of labels, which are not here. That code cuts
    probabilities off at 1e-8; here logarithms are exact.

    "Bridging Cross-task Protocol Inconsistency" also compares a sigmoid of
    each class, for dense detectors. Its released code takes a binary cross
    entropy, which is larger by the teacher's entropy; multiplies each term by
    ``|sigmoid(teacher) - sigmoid(student)|``, through which gradients flow,
    too; and divides the sum over all positions by the number of positive
    anchors. Here no term has such a factor, and background positions count
    like others in the mean.

    Args:
        tau (float): Temperature. Defaults to 1.0.
        reduction (str): 'batchmean' is the mean over samples, and over
            positions of a map, of the sum over classes; 'sum' the sum over
            all; 'mean' the mean over all elements, C times smaller than
            'batchmean'. Defaults to 'batchmean'.
        loss_weight (float): Factor of the loss. Defaults to 1.0.

    Raises:
        ValueError: If tau is not positive, or the reduction not one of those
            above.

    Source: Yang et al., "Multi-Label Knowledge Distillation" (2023), the
    multi-label logits distillation; compare Yang et al., "Bridging Cross-task
    Protocol Inconsistency for Distillation in Dense Object Detection" (2023).
    """

    activation = 'sigmoid'

    def __init__(
        self,
        tau: float = 1.0,
        reduction: str = 'batchmean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(tau, reduction, loss_weight)

    def _log_probabilities(self, logits: Tensor) -> Tensor:
        """Of sigmoid and of 1 - sigmoid, exact for large logits, too."""
        return torch.stack([F.logsigmoid(logits), F.logsigmoid(-logits)])
