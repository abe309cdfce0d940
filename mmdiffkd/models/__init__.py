"""Models: the denoising core, necks, losses, backbones and the distiller.

Every neck, loss, backbone and the distiller can be imported from here.
"""

from . import backbones, diffusion, distillers, losses, necks
from .backbones import *  # noqa: F403
from .distillers import *  # noqa: F403
from .losses import *  # noqa: F403
from .necks import *  # noqa: F403

__all__ = ['backbones', 'diffusion', 'distillers', 'losses', 'necks']
for _package in (backbones, distillers, losses, necks):
    __all__ += _package.__all__
