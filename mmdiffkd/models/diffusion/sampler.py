"""The deterministic walk from a noisy latent to the clean estimate."""

from collections.abc import Callable
from math import sqrt

import torch
from torch import Tensor

from mmdiffkd.registry import MODELS

from .precision import at_least_float32, untracked
from .schedule import NoiseSchedule


@MODELS.register_module()
class DDIMSampler:
    """DDIM without added noise (eta = 0) and without clipping.

    With ``stride = start_timestep // num_steps`` it visits
    ``stride * (num_steps - 1), ..., stride, 0``: by default 400, 300, 200,
    100, 0, as the released DiffKD does (its paper calls that a start at
    500). The last step lands on the clean estimate (alpha-bar 1). Each step
    is ``latent * a + predicted noise * b``; a and b are computed once, in
    float64, from the schedule's float32 table.

    Attributes:
        timesteps (list[int]): The timesteps visited, in order.
        steps (list[tuple[int, float, float]]): For each of them t, a and b.

    Args:
        num_steps (int): Number of denoising steps, the paper's NFEs.
            Defaults to 5.
        start_timestep (int): Where the walk starts; the first timestep
            visited lies one stride below. Defaults to 500.
        schedule (NoiseSchedule, optional): Its alpha-bar is read once, here.
            Defaults to None, a :class:`NoiseSchedule` with its defaults.
        grad_steps (int, optional): In how many steps, the last ones, the
            denoiser records gradients; in those before, its prediction is a
            constant. The latent's own path is linear and keeps its gradient
            in every step, so that what the walk starts from always gets one.
            The values are the same whatever it is. Defaults to None, all.

    Raises:
        ValueError: If ``num_steps`` is not positive, exceeds
            ``start_timestep``, if that exceeds the schedule, or if
            ``grad_steps`` is negative or exceeds ``num_steps``.

    Source: Song et al., "Denoising Diffusion Implicit Models" (2021),
    Eq. (12) with sigma = 0; DiffKD, Eq. (5) and appendix B.1.
    """

    def __init__(
        self,
        num_steps: int = 5,
        start_timestep: int = 500,
        schedule: NoiseSchedule | None = None,
        grad_steps: int | None = None,
    ) -> None:
        schedule = schedule or NoiseSchedule()
        if num_steps < 1:
            raise ValueError(
                f'num_steps={num_steps}: the number of inference steps must '
                'be at least 1'
            )
        if num_steps > start_timestep:
            raise ValueError(
                f'num_steps={num_steps} inference steps do not fit into '
                f'start_timestep={start_timestep} timesteps: take fewer '
                'steps or start later'
            )
        if start_timestep > schedule.num_train_timesteps:
            raise ValueError(
                f'start_timestep={start_timestep} lies beyond the schedule '
                f'with num_train_timesteps={schedule.num_train_timesteps}'
            )
        if grad_steps is None:
            grad_steps = num_steps
        if not 0 <= grad_steps <= num_steps:
            raise ValueError(
                f'grad_steps={grad_steps}: gradients can pass through the '
                f'denoiser in 0 to num_steps={num_steps} of the inference '
                'steps'
            )
        self.grad_steps = grad_steps
        stride = start_timestep // num_steps
        self.timesteps = [stride * i for i in reversed(range(num_steps))]
        alpha_bars = [schedule.alpha_bar(t) for t in self.timesteps] + [1.0]
        self.steps = [
            (t, *_coefficients(now, after))
            for t, now, after in zip(
                self.timesteps, alpha_bars, alpha_bars[1:]
            )
        ]

    def sample(
        self,
        denoiser: Callable[[Tensor, int], Tensor],
        latent: Tensor,
        trajectory: list[Tensor] | None = None,
    ) -> Tensor:
        """Walk from the first timestep to the clean estimate.

        Gradients flow into the latent, and through the last ``grad_steps``
        steps into the denoiser.

        Args:
            denoiser (Callable): Predicts the noise in ``(latent, t)``.
            latent (Tensor): What the walk starts from, of any shape.
            trajectory (list[Tensor], optional): Takes the latent after each
                step. Defaults to None.

        Returns:
            Tensor: The clean estimate, in float32 or better.
        """
        latent = at_least_float32(latent)
        untracked_steps = len(self.steps) - self.grad_steps
        for index, (timestep, *scales) in enumerate(self.steps):
            if torch.is_grad_enabled() and index >= untracked_steps:
                noise = denoiser(latent, timestep)
            else:
                with untracked(latent.device):
                    noise = denoiser(latent, timestep)
            latent_scale, noise_scale = scales
            noise = noise.to(latent.dtype)
            latent = (latent_scale * latent).add_(noise, alpha=noise_scale)
            if trajectory is not None:
                trajectory.append(latent)
        return latent


def _coefficients(now: float, after: float) -> tuple[float, float]:
    """Scales of latent and noise in a step between two alpha-bars."""
    latent_scale = sqrt(after / now)
    return latent_scale, sqrt(1 - after) - latent_scale * sqrt(1 - now)
