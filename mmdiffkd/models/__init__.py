"""Models: the denoising core, necks, losses, backbones and the distiller."""

from . import backbones, diffusion, distillers, losses, necks

__all__ = ['backbones', 'diffusion', 'distillers', 'losses', 'necks']
