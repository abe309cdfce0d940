"""Knowledge distillation with denoising diffusion for OpenMMLab models."""

from .utils.setup_env import check_versions, register_config_packages
from .version import __version__

__all__ = ['__version__']

check_versions()
register_config_packages()
