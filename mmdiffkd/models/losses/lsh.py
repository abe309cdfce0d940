"""Feature mimicking by locality-sensitive hashing."""

from collections.abc import Iterable

import torch
from mmengine.dist import all_gather
from torch import Tensor, nn
from torch.nn import functional as F

from mmdiffkd.registry import MODELS

from .base import DistillLoss
from .operands import check_tensor_channels

_BIASES = ('median', 'mean', 'zero')
_FILTERS = ('all', 'teacher_correct')
# Projections that are sorted at once: 256 MB in float32.
_CHUNK = 2**26
# Units of rounding within which a feature counts as lying on a plane.
_TIE = 8


@MODELS.register_module()
class LSHLoss(DistillLoss):
    """Agree with the teacher on the side of every hash plane.

    ``BCE(h(student), 1[h(teacher) > 0])``, averaged over planes and samples,
    with ``h(f) = std * (W f + b)`` and W frozen, drawn from a standard
    normal distribution. The teacher's hard code (:meth:`code`) is the label,
    the student's value before the sign the prediction: directions count,
    lengths hardly. With ``with_l2`` the mean squared error, of the same
    weight, is added.

    A teacher's feature that lies on a plane has the label 0. A median puts
    one training sample on every plane, where ``W f + b`` is 0 but for
    rounding: its sign depends on the processor, the number of threads and
    the other samples of the batch. So a feature counts as lying on a plane
    if ``W f + b`` is at most 8 units of rounding (``eps`` of
    :func:`torch.finfo`) times ``sqrt(C) * |f|``, which is about
    ``|w| * |f|``. Products in reduced precision (TF32) are less exact.

    The standard deviation scales the logits and nothing else, so that it is
    a factor here: planes and bias are saved for a standard deviation of 1.

    The loss is not 0 for equal tensors: like any cross-entropy it rewards
    logits that are farther from 0.

    On maps each position is hashed; the mean is over positions as well.

    Args:
        teacher_channels (int): C of the teacher's tensor; a distiller fills
            it in.
        hash_bits (int): The number of planes. The released code has 2048 on
            ImageNet and 32 * C on CIFAR. The planes, ``hash_bits * C * 4``
            bytes, are part of the checkpoint. Defaults to 2048.
        hash_std (float or str): Standard deviation of W's entries, or
            'teacher_head': that of the teacher's classifier's weight, for
            which the entry has to name that layer, ``teacher_head='head.fc'``
            say. Defaults to 'teacher_head'.
        bias (str): 'median' halves the training set at each plane: b is
            minus the (lower) median over the teacher's features; 'mean'
            takes the mean; 'zero' needs no pass over the data. All features
            are held at once (51 MB for 50,000 images and 256 channels;
            H * W times as much for maps): tap pooled features, or take
            'zero'. Defaults to 'median'.
        with_l2 (bool): Whether to add the mean squared error.
            Defaults to True.
        sample_filter (str): 'all', or 'teacher_correct': only samples that
            the teacher classifies correctly count, and the mean is over
            them; 0 if there is none in the batch of this process. The
            latter is what the released scripts have. Defaults to 'all'.
        seed (int): Of W's own generator; every process draws the same.
            Defaults to 0.
        loss_weight (float): Factor of the loss. Defaults to 1.0.

    Attributes:
        supplied (tuple[str, ...]): What the configuration needs of what a
            distiller can supply.
        prepared (bool): Whether the bias is known. It is when it is zero,
            after :meth:`prepare`, or after loading a state in which it was.

    Raises:
        ValueError: If an argument is out of range.

    Source: Wang, Ge and Wu, "Distilling Knowledge by Mimicking Features"
    (2021), with the released code's LSH, LSHL2 (``with_l2``) and LSHL2_S
    (``sample_filter='teacher_correct'``).
    """

    def __init__(
        self,
        teacher_channels: int,
        hash_bits: int = 2048,
        hash_std: float | str = 'teacher_head',
        bias: str = 'median',
        with_l2: bool = True,
        sample_filter: str = 'all',
        seed: int = 0,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(loss_weight)
        if hash_bits < 1:
            raise ValueError(f'hash_bits={hash_bits} must be at least 1')
        if hash_std != 'teacher_head' and not (
            isinstance(hash_std, (int, float)) and hash_std > 0
        ):
            raise ValueError(
                f"hash_std={hash_std!r} must be above 0 or 'teacher_head'"
            )
        if bias not in _BIASES:
            raise ValueError(f'bias={bias!r} must be one of {_BIASES}')
        if sample_filter not in _FILTERS:
            raise ValueError(
                f'sample_filter={sample_filter!r} must be one of {_FILTERS}'
            )
        self.hash_std = hash_std
        self.bias_kind = bias
        self.with_l2 = with_l2
        self.sample_filter = sample_filter
        self.supplied = ()
        if hash_std == 'teacher_head':
            self.supplied += ('teacher_head',)
        if sample_filter == 'teacher_correct':
            self.supplied += ('gt_labels', 'teacher_logits')
        planes = torch.randn(
            hash_bits,
            teacher_channels,
            generator=torch.Generator('cpu').manual_seed(seed),
            device='cpu',
        )
        self.register_buffer('planes', planes)
        self.prepared = bias == 'zero'
        # Not a number until it is known, which a checkpoint tells as well.
        unknown = 0.0 if self.prepared else torch.nan
        self.register_buffer('bias', torch.full((hash_bits,), unknown))
        self.register_load_state_dict_post_hook(_recall_preparation)

    @torch.no_grad()
    def prepare(self, teachers: Iterable[Tensor]) -> None:
        """Find the bias in one pass over the training set.

        All features are held at once, N * C * 4 bytes on the device of the
        planes: 51 MB for CIFAR's 50,000 images and 256 channels. Processes
        that each see a share of the set, all of one size, find the bias of
        the whole.

        Args:
            teachers (Iterable[Tensor]): The teacher's tensors, (B, C) or
                (B, C, H, W), batch by batch.

        Raises:
            ValueError: If there is none, or it has other channels.
        """
        channels = self.planes.shape[1]
        rows = []
        for teacher in teachers:
            check_tensor_channels(teacher, teacher_channels=channels)
            rows.append(teacher.movedim(1, -1).reshape(-1, channels))
        if not rows:
            raise ValueError(
                f'bias={self.bias_kind!r} needs the features of the '
                "training set, which is empty; bias='zero' needs none"
            )
        features = torch.cat(all_gather(torch.cat(rows).to(self.planes)))
        if self.bias_kind == 'median':
            planes = self.planes.split(max(1, _CHUNK // len(features)))
            centers = [_lower_median(features @ part.T) for part in planes]
            self.bias.copy_(-torch.cat(centers))
        elif self.bias_kind == 'mean':
            self.bias.copy_(-(self.planes @ features.mean(0)))
        self.prepared = True

    def distance(
        self,
        preds_S: Tensor,
        preds_T: Tensor,
        gt_labels: Tensor | None = None,
        teacher_logits: Tensor | None = None,
        teacher_head: nn.Module | None = None,
    ) -> Tensor:
        """Compare the codes of two tensors.

        Args:
            preds_S (Tensor): The student's, (B, C) or (B, C, H, W).
            preds_T (Tensor): The teacher's, of the same shape; the code of a
                sample is a constant, whatever it depends on.
            gt_labels (Tensor, optional): Classes (B,), for
                ``sample_filter='teacher_correct'``. Defaults to None.
            teacher_logits (Tensor, optional): (B, classes), likewise.
                Defaults to None.
            teacher_head (nn.Module, optional): The teacher's classifier, of
                which ``weight`` is read, for ``hash_std='teacher_head'``.
                Defaults to None.

        Returns:
            Tensor: A scalar, without ``loss_weight``.

        Raises:
            RuntimeError: If the bias is not known yet.
            ValueError: If the shapes differ, have other channels, or what
                the configuration needs is missing.
        """
        if not self.prepared:
            raise RuntimeError(
                f'bias={self.bias_kind!r} of LSHLoss is not known: call '
                'prepare() with the features of the training set, which '
                "mmdiffkd.DistillHook does; bias='zero' needs none"
            )
        check_tensor_channels(preds_T, teacher_channels=self.planes.shape[1])
        with torch.autocast(preds_S.device.type, enabled=False):
            logits = self._project(preds_S) * self._std(teacher_head)
            code = self.code(preds_T).to(logits.dtype)
            terms = F.binary_cross_entropy_with_logits(
                logits, code, reduction='none'
            )
            losses = terms.flatten(1).mean(1)
            if self.with_l2:
                errors = (preds_S - preds_T).square()
                losses = losses + errors.flatten(1).mean(1)
        if self.sample_filter == 'all':
            return losses.mean()
        if gt_labels is None or teacher_logits is None:
            raise ValueError(
                "sample_filter='teacher_correct' needs gt_labels and "
                "teacher_logits; sample_filter='all' does not"
            )
        right = (teacher_logits.argmax(1) == gt_labels).to(losses.dtype)
        count = right.sum().clamp(min=1)
        return (losses * right).sum() / count

    def code(self, features: Tensor) -> Tensor:
        """On which side of every plane features lie.

        Args:
            features (Tensor): The teacher's, (B, C) or (B, C, H, W), in
                float32 or float64.

        Returns:
            Tensor: Of type bool, (B, bits) or (B, H, W, bits): True where
            the feature lies above the plane, False below it and on it.
        """
        length = torch.linalg.vector_norm(features, dim=1).unsqueeze(-1)
        scale = features.shape[1] ** 0.5 * torch.finfo(features.dtype).eps
        return self._project(features) > _TIE * scale * length

    def _project(self, features: Tensor) -> Tensor:
        planes, bias = (b.to(features.dtype) for b in (self.planes, self.bias))
        return F.linear(features.movedim(1, -1), planes, bias)

    def _std(self, teacher_head: nn.Module | None) -> Tensor | float:
        if self.hash_std != 'teacher_head':
            return self.hash_std
        weight = getattr(teacher_head, 'weight', None)
        if weight is None:
            raise ValueError(
                "`hash_std='teacher_head'` reads the weight of the teacher's "
                f'classifier, which {type(teacher_head).__name__} does not '
                'have: name the layer itself, for instance teacher_head='
                "'head.fc' in the entry, or give hash_std a number"
            )
        return weight.detach().to(self.planes.dtype).std()


def _lower_median(values: Tensor) -> Tensor:
    """As ``torch.median(0)``, which CUDA cannot do deterministically."""
    return values.sort(0).values[(len(values) - 1) // 2]


def _recall_preparation(loss: LSHLoss, incompatible: object) -> None:
    """Load post-hook: a loaded bias needs no pass over the data."""
    loss.prepared = not bool(loss.bias.isnan().any())
