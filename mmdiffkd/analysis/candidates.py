"""Denoisers that may earn their keep, to be measured beside DiffKD's.

They are candidates, not methods, and none was measured yet. A config names
one by its path, as those of :mod:`~mmdiffkd.analysis.controls`. ``z`` are
logits or class maps, ``f`` features, ``sg`` stops the gradient.
"""

import math
from functools import wraps

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdiffkd.models.diffusion import NoiseSchedule
from mmdiffkd.models.diffusion.blocks import batch_norm, pointwise
from mmdiffkd.models.necks import DiffKDNeck, ProjectionNeck
from mmdiffkd.models.necks.aligned import Aligned
from mmdiffkd.models.necks.base import DistillNeck
from mmdiffkd.models.necks.pooling import classify


def time_features(timesteps: Tensor, width: int) -> Tensor:
    """Sines and cosines of times (B,), as (B, width).

    Source: Vaswani et al., "Attention Is All You Need" (2017), section 3.5.
    """
    half = width // 2
    rates = torch.exp(
        -math.log(10_000) * torch.arange(half, device=timesteps.device) / half
    )
    angles = timesteps.float()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class TimedBlock(nn.Module):
    """A residual block that hears the time: group norm, then scale and shift.

    Batch norm would cancel a time that the whole batch shares; group norm
    with one group does not.

    Source: Perez et al., "FiLM" (2018); Dhariwal & Nichol, "Diffusion Models
    Beat GANs" (2021), adaptive group norm.
    """

    def __init__(self, channels: int, reduction: int, width: int) -> None:
        super().__init__()
        inner = max(1, channels // reduction)
        self.norm = nn.GroupNorm(1, channels, affine=False)
        self.modulation = nn.Linear(width, 2 * channels)
        self.layers = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(channels, inner, 1),
            nn.SiLU(),
            nn.Conv2d(inner, inner, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(inner, channels, 1),
        )

    def forward(self, feature: Tensor, time: Tensor) -> Tensor:
        """See the class."""
        scale, shift = self.modulation(time)[..., None, None].chunk(2, dim=1)
        return feature + self.layers(self.norm(feature) * (1 + scale) + shift)


class TimedNetwork(nn.Module):
    """Two timed blocks and a 1x1 convolution, on maps (B, C, H, W)."""

    def __init__(
        self, channels: int, reduction: int = 4, width: int = 64
    ) -> None:
        super().__init__()
        self.width = width
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU())
        self.blocks = nn.ModuleList(
            TimedBlock(channels, reduction, width) for _ in range(2)
        )
        self.output = nn.Conv2d(channels, channels, 1)

    def forward(self, feature: Tensor, timesteps: Tensor) -> Tensor:
        """See the class."""
        time = self.time(time_features(timesteps, self.width))
        # On a CPU, torch 2.11 crashes in the backward pass of group norm over
        # a channels-last tensor that needs no gradient.
        feature = feature.contiguous()
        for block in self.blocks:
            feature = block(feature, time)
        return self.output(feature)


class TimedNeck(ProjectionNeck):
    """What the two necks with a time that survives have in common.

    The teacher's map is standardised: batch norm without parameters.
    """

    @wraps(ProjectionNeck.__init__)
    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        channels = self.teacher_channels
        self.standardization = batch_norm(channels, 'map', affine=False)
        self.network = TimedNetwork(channels)


class CleanDiffusionNeck(TimedNeck):
    """Diffusion that predicts the clean map and starts where it should.

    ``x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps``, ``D(x_t, t)`` predicts
    ``x_0``, and ``loss_diffusion`` is its mean squared error. The walk starts
    at ``sqrt(abar_T) BN(P(f_s)) + sqrt(1 - abar_T) eps`` with T = 250, which
    is as noisy as the network is told, and takes three DDIM steps.

    Source: Ho et al. (2020), Eq. (4); Li & He, "Back to Basics: Let Denoising
    Generative Models Denoise" (2025), for the clean prediction.
    """

    start, steps = 250, 3

    @wraps(ProjectionNeck.__init__)
    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.student_norm = batch_norm(
            self.teacher_channels, 'map', affine=False
        )
        self.schedule = NoiseSchedule()

    def draw(
        self,
        student: Tensor,
        teacher: Tensor,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Draw the noise, and the timesteps of the diffusion loss."""

        def normal() -> Tensor:
            return torch.randn(
                teacher.shape, generator=generator, device=teacher.device
            )

        timesteps = torch.randint(
            2 * self.start,
            (len(teacher),),
            generator=generator,
            device=teacher.device,
        )
        return {
            'noise': normal(),
            'diffusion_noise': normal(),
            'timesteps': timesteps,
        }

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        noise: Tensor,
        diffusion_noise: Tensor,
        timesteps: Tensor,
    ) -> Aligned:
        """See the class."""
        self.check(student, teacher)
        target = self.standardization(teacher.detach())
        latent = self.student_norm(self.student_projection(student))
        refined = self._walk(latent, noise)
        noisy = self.schedule.add_noise(target, diffusion_noise, timesteps)
        clean = self.network(noisy, timesteps)
        losses = {'loss_diffusion': F.mse_loss(clean, target)}
        return Aligned(refined, target, losses, {})

    def _walk(self, latent: Tensor, noise: Tensor) -> Tensor:
        times = [
            self.start * i // self.steps for i in range(self.steps, 0, -1)
        ]
        alphas = [self.schedule.alpha_bar(t) for t in times] + [1.0]
        latent = (
            math.sqrt(alphas[0]) * latent + math.sqrt(1 - alphas[0]) * noise
        )
        for t, now, after in zip(times, alphas, alphas[1:]):
            told = torch.full((len(latent),), t, device=latent.device)
            clean = self.network(latent, told)
            predicted = (latent - math.sqrt(now) * clean) / math.sqrt(1 - now)
            latent = (
                math.sqrt(after) * clean + math.sqrt(1 - after) * predicted
            )
        return latent


class FlowNeck(TimedNeck):
    """A flow from the student's feature to the teacher's, every step taught.

    ``x_1 = P(f_s)``, ``x_(i-1) = x_i - D(x_i, t_i) / N``, N = 3. Each step
    gives an estimate of the end, ``x_i - t_i D(x_i, t_i)``, and all N of them
    are compared with the standardised teacher. There is no noise.

    Source: Shao et al., "Precise Knowledge Transfer via Flow Matching"
    (2024), with its supervision of every step.
    """

    steps = 3

    def forward(self, student: Tensor, teacher: Tensor) -> Aligned:
        """See the class."""
        self.check(student, teacher)
        target = self.standardization(teacher.detach())
        latent = self.student_projection(student)
        estimates = []
        for i in range(self.steps, 0, -1):
            time = i / self.steps
            told = torch.full((len(latent),), 1000 * time).to(latent)
            velocity = self.network(latent, told)
            estimates.append(latent - time * velocity)
            latent = latent - velocity / self.steps
        return Aligned(
            torch.cat(estimates), target.repeat(self.steps, 1, 1, 1), {}, {}
        )


class LensNeck(ProjectionNeck):
    """The teacher's classifier as a lens: ``h_t(BN(P(f_s)))`` and ``z_t``.

    The student's last map is projected, averaged and read by the teacher's
    frozen classifier. DiffKDClassifierNeck is the same with the denoiser.

    Source: Chen et al., "Knowledge Distillation with the Reused Teacher
    Classifier" (2022), where the student keeps that classifier.
    """

    to_classes = True

    @wraps(ProjectionNeck.__init__)
    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.norm = batch_norm(self.teacher_channels, self.feature)

    def forward(
        self, student: Tensor, teacher: Tensor, teacher_head: nn.Module
    ) -> Aligned:
        """See the class."""
        projected, target, losses, metrics = super().forward(student, teacher)
        logits = classify(self.norm(projected), teacher_head)
        with torch.no_grad():
            teacher_logits = classify(target, teacher_head)
        return Aligned(logits, teacher_logits, losses, metrics)


def standardized(logits: Tensor) -> Tensor:
    """Zero mean and unit variance over the classes of each position.

    Source: Sun et al., "Logit Standardization in Knowledge Distillation"
    (2024), Eq. (10).
    """
    deviation = logits.std(dim=1, keepdim=True, correction=0)
    return (logits - logits.mean(dim=1, keepdim=True)) / (deviation + 1e-6)


class StandardizedLogitsNeck(DistillNeck):
    """Both sides standardised over classes; nothing is trained."""

    def __init__(
        self,
        student_channels: int | None = None,
        teacher_channels: int | None = None,
        feature: str = 'map',
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.set_channels(student_channels, teacher_channels)
        self.feature = feature

    def forward(self, student: Tensor, teacher: Tensor) -> Aligned:
        """See the class."""
        self.check(student, teacher)
        return Aligned(
            standardized(student), standardized(teacher.detach()), {}, {}
        )


class AnchoredNeck(DiffKDNeck):
    """The denoiser corrects, and begins with no correction.

    ``z' = z_s + a (D(z_s) - z_s)``, both sides standardised over classes, a
    learned for each class from 0. No projection and no batch norm stand
    between the student's classes and the teacher's.
    """

    @wraps(DiffKDNeck.__init__)
    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, noise_matching=False, **kwargs)
        self.student_projection = nn.Identity()
        self.output_projection = nn.Identity()
        self.amount = nn.Parameter(torch.zeros(self.channels))

    @property
    def _dtype(self) -> torch.dtype:
        return self.amount.dtype

    def encode(self, teacher: Tensor) -> tuple[Tensor, None]:
        """The standardised target."""
        return standardized(super().encode(teacher)[0]), None

    def refine(
        self, latent: Tensor, trajectory: list[Tensor] | None = None
    ) -> Tensor:
        """Correct the standardised logits."""
        latent = standardized(latent)
        denoised = super().refine(latent, trajectory)
        shape = -1, *[1] * (latent.dim() - 2)
        return latent + self.amount.reshape(shape) * (denoised - latent)


class RefinedTargetNeck(StandardizedLogitsNeck):
    """The target is a mix of the teacher and of what the student is near to.

    ``z' = (z_t + sg(D(z_s))) / 2``. D learns from pairs of ``sg(z_s)`` and
    ``z_t`` alone, so that the student's gradient passes through nothing.
    Both sides are standardised over classes.
    """

    @wraps(StandardizedLogitsNeck.__init__)
    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        channels, feature = self.teacher_channels, self.feature
        self.network = nn.Sequential(
            pointwise(channels, 4 * channels, feature),
            batch_norm(4 * channels, feature),
            nn.ReLU(inplace=True),
            pointwise(4 * channels, channels, feature),
        )

    def forward(self, student: Tensor, teacher: Tensor) -> Aligned:
        """See the class."""
        student, target, _, _ = super().forward(student, teacher)
        guess = self.network(student.detach())
        losses = {'loss_refinement': F.mse_loss(guess, target)}
        return Aligned(student, (target + guess.detach()) / 2, losses, {})
