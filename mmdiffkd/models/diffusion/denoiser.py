"""Noise-prediction networks epsilon_theta(z_t, t)."""

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdiffkd.registry import MODELS

from .blocks import Bottleneck, mlp
from .precision import computing_dtype


class Denoiser(BaseModule):
    """A prediction network behind a learned time embedding.

    The embedding is added once, to the input, at every position. In train
    mode it tells apart the samples of a batch (the diffusion loss), but batch
    norm cancels it exactly where all samples share one timestep (the walk);
    so it does in the released code. With several processes, batch norm sees
    the batch of one, unless the recipe sets ``sync_bn``.

    A denoiser of your own needs this ``forward`` and the attribute
    ``num_timesteps``.

    Args:
        channels (int): C of the latent.
        prediction (nn.Module): Maps the embedded input to the noise.
        num_timesteps (int): Rows of the time embedding: timesteps 0 ..
            ``num_timesteps - 1`` can be predicted.
        init_cfg (dict, optional): Initialisation. Defaults to None.
    """

    def __init__(
        self,
        channels: int,
        prediction: nn.Module,
        num_timesteps: int,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.num_timesteps = num_timesteps
        self.time_embedding = nn.Embedding(num_timesteps, channels)
        self.prediction = prediction

    def forward(self, noisy: Tensor, timesteps: Tensor | int) -> Tensor:
        """Predict the noise.

        Args:
            noisy (Tensor): z_t of shape (B, C, H, W) or (B, C).
            timesteps (Tensor | int): Integers of shape (B,), on the same
                device, or one for the whole batch.

        Returns:
            Tensor: The predicted noise, of the same shape.
        """
        # An int indexes the table as a view: no transfer to the device.
        embedding = (
            self.time_embedding.weight[timesteps]
            if isinstance(timesteps, int)
            else self.time_embedding(timesteps)
        )
        embedding = embedding.reshape(
            *embedding.shape, *[1] * (noisy.dim() - 2)
        )
        # Noisy latents are float32 even where the network is half: cast once,
        # instead of at every convolution and shortcut.
        dtype = computing_dtype(noisy.device, embedding.dtype)
        return self.prediction((noisy + embedding).to(dtype))


@MODELS.register_module()
class BottleneckDenoiser(Denoiser):
    """The denoiser of maps: two bottlenecks, a 1x1 convolution, batch norm.

    At 256 channels its prediction network has 207,872 parameters, the
    0.21 M of the paper's Table 12, which leaves the time embedding out.

    Args:
        channels (int): C of the latent.
        reduction (int): The bottlenecks' width is ``max(1, C // reduction)``.
            Defaults to 4.
        num_timesteps (int): Rows of the time embedding. Defaults to 1280, as
            in the released code, of which 1000 are used.
        init_cfg (dict, optional): Initialisation. Defaults to None,
            PyTorch's.

    Source: DiffKD, section 3.2 and Figure 3; the final batch norm is in the
    released code alone.
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 4,
        num_timesteps: int = 1280,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        prediction = nn.Sequential(
            Bottleneck(channels, reduction),
            Bottleneck(channels, reduction),
            nn.Conv2d(channels, channels, 1),
            nn.BatchNorm2d(channels),
        )
        super().__init__(channels, prediction, num_timesteps, init_cfg)


@MODELS.register_module()
class MLPDenoiser(Denoiser):
    """The denoiser of vectors (logits, say): two blocks of linear layers.

    Args:
        channels (int): C of the latent.
        expansion (int): The blocks' width is ``C * expansion``.
            Defaults to 4.
        num_timesteps (int): Rows of the time embedding. Defaults to 1280, as
            in the released code, of which 1000 are used.
        init_cfg (dict, optional): Initialisation. Defaults to None,
            PyTorch's.

    Source: DiffKD, appendix B.2; the widths are the released code's.
    """

    def __init__(
        self,
        channels: int,
        expansion: int = 4,
        num_timesteps: int = 1280,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        prediction = nn.Sequential(
            *mlp(channels, expansion),
            nn.BatchNorm1d(channels),
            *mlp(channels, expansion),
        )
        super().__init__(channels, prediction, num_timesteps, init_cfg)
