"""The noise schedule: how much of the clean signal is left at timestep t."""

import torch
from mmengine.model import BaseModule
from torch import Tensor

from mmdiffkd.registry import MODELS

from .precision import at_least_float32


@MODELS.register_module()
class NoiseSchedule(BaseModule):
    """The linear schedule of DDPM.

    ``alpha_bars`` is the float32 cumulative product over ``1 - beta``, beta
    linear in float32 (a float64 product is another schedule, 1e-6 off). Its
    values are the same to the last bit on every processor. The buffer follows
    the module's device, stays exactly this table whatever dtype the module is
    moved to, and is in no state dict.

    Args:
        num_train_timesteps (int): T, the number of timesteps 0 .. T - 1.
            Defaults to 1000.
        beta_start (float): Variance added at t = 0. Defaults to 1e-4.
        beta_end (float): Variance added at t = T - 1. Defaults to 0.02.

    Raises:
        ValueError: If T is not positive, or not
            0 < beta_start <= beta_end < 1.

    Source: Ho et al., "Denoising Diffusion Probabilistic Models" (2020),
    section 4; DiffKD, Eq. (2), whose released code has these values.
    """

    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
    ) -> None:
        super().__init__()
        if num_train_timesteps < 1:
            raise ValueError(
                f'num_train_timesteps={num_train_timesteps} must be at least 1'
            )
        if not 0 < beta_start <= beta_end < 1:
            raise ValueError(
                f'beta_start={beta_start}, beta_end={beta_end}: a schedule '
                'needs 0 < beta_start <= beta_end < 1'
            )
        self.num_train_timesteps = num_train_timesteps
        betas = _linspace(beta_start, beta_end, num_train_timesteps)
        self._table = (1 - betas).double().cumprod(dim=0).float()
        self.register_buffer(
            'alpha_bars',
            self._table.to(torch.get_default_device()),
            persistent=False,
        )

    def _apply(self, fn, recurse: bool = True):
        super()._apply(fn, recurse)
        # `.half()` would round alpha-bar at t = 0 to 1, and `to_empty`
        # leaves no values at all: take the device only.
        self.alpha_bars = self._table.to(self.alpha_bars.device)
        return self

    def alpha_bar(self, timestep: int) -> float:
        """The table's value at one timestep, as a Python number."""
        return self._table[timestep].item()

    def add_noise(
        self, clean: Tensor, noise: Tensor, timesteps: Tensor
    ) -> Tensor:
        """Diffuse to the given timesteps: DDPM Eq. (4), DiffKD Eq. (3).

        ``sqrt(alpha_bar_t) * clean + sqrt(1 - alpha_bar_t) * noise``

        Args:
            clean (Tensor): z_0, of shape (B, C, ...).
            noise (Tensor): Standard normal, of the same shape.
            timesteps (Tensor): Integers of shape (B,), on the same device.

        Returns:
            Tensor: z_t of the same shape, in float32 or better.
        """
        clean = at_least_float32(clean)
        alpha_bar = self.alpha_bars[timesteps].to(clean.dtype)
        alpha_bar = alpha_bar.reshape(-1, *[1] * (clean.dim() - 1))
        noisy = alpha_bar.sqrt() * clean
        return noisy.addcmul_((1 - alpha_bar).sqrt(), noise.to(clean.dtype))


def _linspace(start: float, end: float, steps: int) -> Tensor:
    """``torch.linspace`` in float32, as fused multiply-add rounds it.

    PyTorch's own, and with it 1e-6 of alpha-bar, depends on whether the
    processor has that instruction. Here products are exact in float64.
    """
    with torch.device('cpu'):
        first, last = torch.tensor([start, end], dtype=torch.float32)
        step = ((last - first) / max(steps - 1, 1)).double()
        index = torch.arange(steps, dtype=torch.float64)
        rising = first.double() + step * index
        falling = last.double() - step * (steps - 1 - index)
        return torch.where(index < max(steps // 2, 1), rising, falling).float()
