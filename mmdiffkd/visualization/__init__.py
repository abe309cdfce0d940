"""Pictures of what the denoiser does, and of how trainings went."""

from .denoising_panel import attention, denoising_panel, strength
from .predictions import image_of, predictions_panel
from .side_by_side import side_by_side
from .training_curves import plot_training_curves, read_scalars

__all__ = [
    'attention',
    'denoising_panel',
    'image_of',
    'plot_training_curves',
    'predictions_panel',
    'read_scalars',
    'side_by_side',
    'strength',
]
