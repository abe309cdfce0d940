"""Contrastive representation distillation with memory banks."""

import torch
from mmengine.dist import all_gather, all_reduce
from torch import Tensor, nn

from mmdiffkd.registry import MODELS

from .base import DistillLoss
from .operands import check_tensor_channels, unit


def contrast_loss(scores: Tensor, num_data: int, eps: float = 1e-7) -> Tensor:
    """Tell a sample from noise, by noise-contrastive estimation.

    With K negatives a sample, each drawn with the probability ``1 /
    num_data``, a score s means the probability ``s / (s + K / num_data)`` of
    not being one of them; the loss is minus the logarithm of all decisions'
    probability, a sample.

    Args:
        scores (Tensor): (B, 1 + K), positive; the first is the sample's own.
        num_data (int): The number of samples in the data set.
        eps (float): Added to the denominators. Defaults to 1e-7.

    Returns:
        Tensor: A scalar.

    Source: Tian et al. (2020), as in its released code.
    """
    noise = (scores.shape[1] - 1) / num_data
    denominators = scores + noise + eps
    positive = (scores[:, 0] / denominators[:, 0]).log()
    negative = (noise / denominators[:, 1:]).log()
    return -(positive.sum() + negative.sum()) / len(scores)


@MODELS.register_module()
class CRDLoss(DistillLoss):
    """Recognise the teacher's view of a sample among those of others.

    Student and teacher are embedded by a linear layer each, both trained, and
    brought to length 1. An embedded student is scored, ``exp(dot product /
    temperature) / Z``, against the teacher's embeddings of the same sample
    and of ``neg_num`` samples of other classes, which a memory bank holds;
    an embedded teacher likewise against the student's bank. The sum of both
    directions' :func:`contrast_loss` is the loss. Z is constant: the mean of
    the first batch's scores times the length of the data set, one a
    direction.

    In train mode each call ends with the batch's rows of the banks becoming
    ``momentum * old + (1 - momentum) * new``, brought to length 1. With
    several processes all of them get all rows (and the mean of their Z), so
    that the banks are equal everywhere; the batches have to be of one size.
    A row that would not be finite stays as it was, and such a Z is not kept:
    an overflow under loss scaling spoils its own step alone.

    A bank has a row a sample of the training set. :meth:`allocate` makes
    both; in a run ``mmdiffkd.DistillHook`` calls it. Where a recipe's data
    set has no labels, repeats indices or mixes images, this loss cannot be
    used.

    Negatives are drawn evenly, with replacement, from all samples of all
    other classes. (The released code draws without replacement, in the data
    set.) Scores are computed against the whole bank, of which the negatives'
    are picked: that takes B * N * 4 bytes rather than the
    B * K * dim_out * 4 of picking rows.

    Sizes: a bank has ``N * dim_out * 4`` bytes. The two take 51 MB for the
    50,000 images of CIFAR and 1.3 GB for ImageNet, on the device and, unless
    ``save_bank=False``, in every checkpoint. A step takes as much again,
    since gradients need the banks as they were before it.

    Args:
        student_channels (int): C of the student's vector; a distiller fills
            it in.
        teacher_channels (int): Likewise of the teacher's.
        temperature (float): Divides dot products. Defaults to 0.07.
        neg_num (int): Negatives a sample. Defaults to 16384.
        sample_n (int, optional): The length of the data set, checked if
            given, since the data set knows it. Defaults to None.
        dim_out (int): Length of an embedding. Defaults to 128.
        momentum (float): How much of a bank's row stays. Defaults to 0.5.
        eps (float): See :func:`contrast_loss`. Defaults to 1e-7.
        save_bank (bool): Whether checkpoints hold the banks. Without, a
            resumed run starts with random ones, which an epoch has filled
            again, but continues otherwise. Defaults to True.
        seed (int): Of the random rows that the banks start with; every
            process draws the same. Defaults to 0.
        loss_weight (float): Factor of the loss; 0.8 in the paper.
            Defaults to 1.0.

    Raises:
        ValueError: If an argument is out of range.

    Source: Tian et al., "Contrastive Representation Distillation" (2020),
    and its released code. Names and defaults are those of mmrazor's loss
    but for ``sample_n``, 50,000 there; its embeddings are connectors.
    """

    any_channels = True
    feature = 'vector'

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        temperature: float = 0.07,
        neg_num: int = 16384,
        sample_n: int | None = None,
        dim_out: int = 128,
        momentum: float = 0.5,
        eps: float = 1e-7,
        save_bank: bool = True,
        seed: int = 0,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(loss_weight)
        if temperature <= 0:
            raise ValueError(f'temperature={temperature} must be above 0')
        if neg_num < 1:
            raise ValueError(f'neg_num={neg_num} must be at least 1')
        if not 0 <= momentum < 1:
            raise ValueError(
                f'momentum={momentum} must be at least 0 and below 1'
            )
        self.temperature = temperature
        self.neg_num = neg_num
        self.sample_n = sample_n
        self.momentum = momentum
        self.eps = eps
        self.seed = seed
        self.student_embedding = nn.Linear(student_channels, dim_out)
        self.teacher_embedding = nn.Linear(teacher_channels, dim_out)
        # Z of the student's and of the teacher's scores; 0 is not known yet.
        self.register_buffer('normalizers', torch.zeros(2))
        self.register_buffer('student_bank', None, persistent=save_bank)
        self.register_buffer('teacher_bank', None, persistent=save_bank)
        # The samples sorted by class, and where each class begins and ends.
        self.register_buffer('by_class', None, persistent=False)
        self.register_buffer('class_starts', None, persistent=False)
        self.register_buffer('class_sizes', None, persistent=False)

    def _apply(self, fn, recurse: bool = True) -> 'CRDLoss':
        # Z grows with the data set: half precision would make it infinite.
        known = self.normalizers
        super()._apply(fn, recurse)
        device = self.normalizers.device
        if known.is_meta:
            known = torch.zeros(2)
        self.normalizers = known.to(device)
        return self

    def allocate(
        self, dataset_length: int, labels: Tensor | None = None
    ) -> None:
        """Make the banks, with random rows, and sort the samples by class.

        Args:
            dataset_length (int): N, the number of training samples.
            labels (Tensor, optional): The class of each, integers (N,), in
                the order of ``sample_idx``. Defaults to None, not known,
                which is an error.

        Raises:
            ValueError: If the labels are missing, are not one class a
                sample, or are all the same; or if ``sample_n`` is another
                number.
        """
        if self.sample_n not in (None, dataset_length):
            raise ValueError(
                f'sample_n={self.sample_n}, but the data set has '
                f'{dataset_length} samples: leave it out'
            )
        if labels is None:
            raise ValueError(
                'CRDLoss draws negatives from other classes, but the '
                'training set does not tell its labels: use one that has '
                "get_gt_labels(), as mmpretrain's do, or another loss"
            )
        if labels.shape != (dataset_length,) or labels.is_floating_point():
            raise ValueError(
                'CRDLoss needs one class for each of the '
                f'{dataset_length} samples, but the labels have the shape '
                f'{tuple(labels.shape)} and the type {labels.dtype}'
            )
        weight = self.student_embedding.weight
        device = weight.device
        labels = labels.cpu().long()
        sizes = labels.bincount()
        if sizes.max() == dataset_length:
            raise ValueError(
                'CRDLoss draws negatives from other classes, but all '
                f'{dataset_length} samples are of class {int(labels[0])}'
            )
        self.by_class = labels.argsort(stable=True).to(device)
        self.class_sizes = sizes.to(device)
        self.class_starts = (sizes.cumsum(0) - sizes).to(device)

        generator = torch.Generator('cpu').manual_seed(self.seed)
        bound = (3 / len(weight)) ** 0.5
        for name in ('student_bank', 'teacher_bank'):
            bank = torch.empty(dataset_length, len(weight), device='cpu')
            bank.uniform_(-bound, bound, generator=generator)
            setattr(self, name, bank.to(weight))

    def draw(
        self,
        preds_S: Tensor,
        preds_T: Tensor,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Draw integers that :meth:`negatives` turns into sample indices.

        Args:
            preds_S (Tensor): The student's vectors, (B, C).
            preds_T (Tensor): The teacher's.
            generator (torch.Generator, optional): Source of randomness, on
                the tensors' device. Defaults to None, PyTorch's.

        Returns:
            dict[str, Tensor]: ``draws``, large integers (B, neg_num).
        """
        # So many that the remainder of any length is as good as uniform.
        draws = torch.randint(
            2**62,
            (len(preds_S), self.neg_num),
            generator=generator,
            device=preds_S.device,
        )
        return {'draws': draws}

    def negatives(self, gt_labels: Tensor, draws: Tensor) -> Tensor:
        """Samples of other classes, each as likely as any other.

        Args:
            gt_labels (Tensor): Classes (B,).
            draws (Tensor): From :meth:`draw`, (B, K).

        Returns:
            Tensor: Indices in the data set, (B, K).
        """
        size = self.class_sizes[gt_labels, None]
        start = self.class_starts[gt_labels, None]
        position = draws % (len(self.by_class) - size)
        # Step over the sample's own class.
        return self.by_class[position + size * (position >= start)]

    def distance(
        self,
        preds_S: Tensor,
        preds_T: Tensor,
        gt_labels: Tensor,
        sample_idx: Tensor,
        draws: Tensor | None = None,
    ) -> Tensor:
        """Contrast two batches of vectors, then bring the banks up to date.

        Args:
            preds_S (Tensor): The student's, (B, student_channels).
            preds_T (Tensor): The teacher's, (B, teacher_channels).
            gt_labels (Tensor): Classes (B,), as in :meth:`allocate`; not of
                mixed images.
            sample_idx (Tensor): Each sample's row in the banks, (B,): its
                index in the data set that :meth:`allocate` was told of, the
                same one in every epoch.
            draws (Tensor, optional): From :meth:`draw`. Defaults to None,
                drawn from PyTorch's default generator.

        Returns:
            Tensor: A scalar, without ``loss_weight``.

        Raises:
            RuntimeError: If there are no banks.
            ValueError: If a tensor is no vector or has other channels.
        """
        if self.student_bank is None:
            raise RuntimeError(
                'CRDLoss has no memory banks: call allocate() with the '
                'length and the labels of the training set, which '
                'mmdiffkd.DistillHook does'
            )
        if draws is None:
            draws = self.draw(preds_S, preds_T)['draws']
        with torch.autocast(preds_S.device.type, enabled=False):
            student = _embed('student', self.student_embedding, preds_S)
            teacher = _embed('teacher', self.teacher_embedding, preds_T)
            negatives = self.negatives(gt_labels, draws)
            chosen = torch.cat([sample_idx[:, None], negatives], dim=1)
            scores = [
                self._scores(student, self.teacher_bank, chosen),
                self._scores(teacher, self.student_bank, chosen),
            ]
            normalizers = self._normalize(scores)
            num_data = len(self.by_class)
            losses = [
                contrast_loss(score / normalizer, num_data, self.eps)
                for score, normalizer in zip(scores, normalizers)
            ]
        if self.training:
            self._remember(student.detach(), teacher.detach(), sample_idx)
        return sum(losses)

    def _scores(
        self, embedded: Tensor, bank: Tensor, chosen: Tensor
    ) -> Tensor:
        # Gradients need the bank as it is now, before it is updated.
        bank = bank.to(embedded.dtype, copy=True)
        similarities = (embedded @ bank.T).gather(1, chosen)
        return (similarities / self.temperature).exp()

    @torch.no_grad()
    def _normalize(self, scores: list[Tensor]) -> Tensor:
        """Both Z: the first batch's, for ever."""
        means = torch.stack([score.mean() for score in scores])
        all_reduce(means, 'mean')
        known = self.normalizers.to(means.dtype)
        found = torch.where(known > 0, known, means * len(self.by_class))
        if self.training:
            self.normalizers.copy_(torch.where(found.isfinite(), found, 0.0))
        return found

    @torch.no_grad()
    def _remember(
        self, student: Tensor, teacher: Tensor, sample_idx: Tensor
    ) -> None:
        new = torch.cat(all_gather(torch.stack([student, teacher], dim=1)))
        rows = torch.cat(all_gather(sample_idx))
        for bank, embedded in zip(
            (self.student_bank, self.teacher_bank), new.unbind(1)
        ):
            old = bank[rows]
            mixed = unit(torch.lerp(embedded, old.to(new), self.momentum))
            finite = mixed.isfinite().all(dim=1, keepdim=True)
            bank[rows] = torch.where(finite, mixed.to(bank), old)


def _embed(side: str, layer: nn.Linear, vectors: Tensor) -> Tensor:
    check_tensor_channels(vectors, **{f'{side}_channels': layer.in_features})
    embedded = layer(vectors.to(layer.weight.dtype))
    dtype = torch.promote_types(embedded.dtype, torch.float32)
    return unit(embedded.to(dtype))
