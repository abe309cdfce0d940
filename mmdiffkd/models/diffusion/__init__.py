"""The denoising core: tensors in, tensors out, no model in sight."""

from .autoencoder import LinearAutoencoder
from .denoiser import BottleneckDenoiser, MLPDenoiser
from .noise_matching import AdaptiveNoiseMatching
from .sampler import DDIMSampler
from .schedule import NoiseSchedule

__all__ = [
    'AdaptiveNoiseMatching',
    'BottleneckDenoiser',
    'DDIMSampler',
    'LinearAutoencoder',
    'MLPDenoiser',
    'NoiseSchedule',
]
