"""The linear autoencoder that makes wide teacher features affordable."""

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdiffkd.registry import MODELS

from .blocks import batch_norm, pointwise


@MODELS.register_module()
class LinearAutoencoder(BaseModule):
    """Encode by one linear map and batch norm, decode by one linear map.

    Batch norm, over the batch of one process, gives the code unit variance
    at the start, that of the noise.

    Args:
        channels (int): C of the teacher's feature.
        latent_channels (int): Channels of the code.
        feature (str): 'map' for (B, C, H, W), 'vector' for (B, C).
            Defaults to 'map'.
        init_cfg (dict, optional): Initialisation. Defaults to None,
            PyTorch's.

    Raises:
        ValueError: If ``feature`` is neither 'map' nor 'vector'.

    Source: DiffKD, section 3.2 and Eq. (6); the batch norm is in the
    released code alone.
    """

    def __init__(
        self,
        channels: int,
        latent_channels: int,
        feature: str = 'map',
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.encoder = nn.Sequential(
            pointwise(channels, latent_channels, feature),
            batch_norm(latent_channels, feature),
        )
        self.decoder = pointwise(latent_channels, channels, feature)

    def encode(self, feature: Tensor) -> Tensor:
        """Map (B, C, ...) to the code (B, latent_channels, ...)."""
        return self.encoder(feature)

    def decode(self, code: Tensor) -> Tensor:
        """Map the code (B, latent_channels, ...) to (B, C, ...)."""
        return self.decoder(code)
