"""What DiffKD's neck is compared with, to see which part of it helps.

Each class here is :class:`~mmdiffkd.models.necks.DiffKDNeck` or
:class:`~mmdiffkd.models.necks.ProjectionNeck` with one thing changed. They
are controls of docs/what_the_denoiser_does.md, not methods. A config names one
by its path: ``dict(type='mmdiffkd.analysis.controls.ProjectorNeck')``.
"""

from functools import wraps

import torch
from torch import Tensor, nn

from mmdiffkd.models.diffusion.blocks import batch_norm
from mmdiffkd.models.diffusion.memory_format import lay_out
from mmdiffkd.models.necks import DiffKDNeck, ProjectionNeck
from mmdiffkd.models.necks.aligned import Aligned
from mmdiffkd.models.necks.base import DistillNeck

#: In the middle of the walk, which visits 400, 300, 200, 100 and 0.
TIMESTEP = 200


class OneTimestepNeck(DiffKDNeck):
    """The diffusion loss knows one noise level, that of ``TIMESTEP``.

    Batch norm then cancels the time embedding in the diffusion loss as it
    does in the walk: the denoiser is never told a time.
    """

    def _draw_timesteps(
        self,
        batch_size: int,
        device: torch.device,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        return torch.full((batch_size,), TIMESTEP, device=device)


class FrozenDenoiserNeck(DiffKDNeck):
    """The denoiser stays as it was initialised: nothing trains it."""

    @wraps(DiffKDNeck.__init__)
    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.denoiser.requires_grad_(False)


class ProjectorNeck(DiffKDNeck):
    """The same networks without diffusion: a deep projector.

    The student's latent passes once through the denoiser's prediction
    network, as through any other layers, and the projection after it. There
    is no noise, no timestep, no walk and no diffusion loss. The target is
    DiffKD's.
    """

    @wraps(DiffKDNeck.__init__)
    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, noise_matching=False, **kwargs)
        self.denoiser = self.denoiser.prediction

    #: Nothing is random, and there is no walk to show.
    draw = DistillNeck.draw
    trajectory = DistillNeck.trajectory

    def forward(self, student: Tensor, teacher: Tensor) -> Aligned:
        """Project the student's feature; see the class.

        Args:
            student (Tensor): (B, student_channels, ...).
            teacher (Tensor): (B, teacher_channels, ...).

        Returns:
            Aligned: The projected feature and the target, both
            (B, latent_channels, ...), and ``loss_autoencoder`` if there is
            an autoencoder.
        """
        target, autoencoder_loss = self.encode(teacher)
        latent = self.denoiser(self.project(student))
        losses = {}
        if autoencoder_loss is not None:
            losses['loss_autoencoder'] = (
                self.autoencoder_weight * autoencoder_loss
            )
        refined = lay_out(self.output_projection(latent))
        return Aligned(refined, target, losses, {})


class LinearProjectorNeck(ProjectorNeck):
    """:class:`ProjectorNeck` without its deep part: linear, batch norm."""

    @wraps(DiffKDNeck.__init__)
    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.denoiser = nn.Identity()


class UnprojectedNeck(DiffKDNeck):
    """No projection before or after the walk: classes are not mixed there.

    For logits, where student and teacher have the same channels.
    """

    @wraps(DiffKDNeck.__init__)
    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.student_projection = nn.Identity()
        self.output_projection = nn.Identity()

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.denoiser.parameters()).dtype


class StandardizedTargetNeck(ProjectionNeck):
    """:class:`ProjectionNeck`, compared with the standardised teacher."""

    @wraps(ProjectionNeck.__init__)
    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.standardization = batch_norm(
            self.teacher_channels, self.feature, affine=False
        )

    def forward(self, student: Tensor, teacher: Tensor) -> Aligned:
        """Project the student's feature, standardise the teacher's.

        Args:
            student (Tensor): (B, student_channels, ...).
            teacher (Tensor): (B, teacher_channels, ...).

        Returns:
            Aligned: Both, (B, teacher_channels, ...); no losses, no metrics.
        """
        return super().forward(student, self.standardization(teacher))
