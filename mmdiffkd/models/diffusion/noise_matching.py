"""Adaptive noise matching: how noisy is the student's latent already?"""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdiffkd.registry import MODELS

from .blocks import Bottleneck, batch_norm, is_map, mlp
from .memory_format import lay_out
from .precision import at_least_float32


@MODELS.register_module()
class AdaptiveNoiseMatching(BaseModule):
    """Mix noise into the latent by a gate learned for each sample.

    ``gamma * latent + (1 - gamma) * noise``: gamma = 1 adds no noise. It is
    the first of two softmax probabilities, and about 0.5 in the beginning.
    It learns through the distance between the denoised latent and the target
    alone. Its batch norm sees the batch of one process.

    Args:
        channels (int): C of the latent.
        feature (str): 'map' for (B, C, H, W): a bottleneck, the average over
            positions, a linear layer. 'vector' for (B, C): a block of linear
            layers in the bottleneck's place. Defaults to 'map'.
        reduction (int): The bottleneck's width is
            ``max(1, C // reduction)``. Defaults to 8.
        expansion (int): The width for vectors is ``C * expansion``.
            Defaults to 2.
        init_cfg (dict, optional): Initialisation. Defaults to None,
            PyTorch's.

    Raises:
        ValueError: If ``feature`` is neither 'map' nor 'vector'.

    Source: DiffKD, Eq. (8) and Figure 3; the widths and the softmax are the
    released code's.
    """

    def __init__(
        self,
        channels: int,
        feature: str = 'map',
        reduction: int = 8,
        expansion: int = 2,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if is_map(feature):
            self.features = Bottleneck(channels, reduction)
        else:
            self.features = nn.Sequential(
                *mlp(channels, expansion), batch_norm(channels, feature)
            )
        self.gate = nn.Linear(channels, 2)

    def forward(self, latent: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Mix.

        Args:
            latent (Tensor): The student's, of shape (B, C, H, W) or (B, C).
            noise (Tensor): Standard normal, of the same shape.

        Returns:
            tuple[Tensor, Tensor]: What the sampler starts from, of the same
            shape, and gamma of shape (B,), both in float32 or better.
        """
        features = self.features(latent)
        if features.dim() == 4:
            features = lay_out(features).mean(dim=(2, 3))
        logits = at_least_float32(self.gate(features))
        gamma = logits.softmax(dim=1)[:, 0]
        weight = gamma.reshape(-1, *[1] * (latent.dim() - 1))
        latent, noise = latent.to(weight.dtype), noise.to(weight.dtype)
        return torch.lerp(noise, latent, weight), gamma
