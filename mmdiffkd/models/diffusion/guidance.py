"""Classifier guidance: the walk steered to what a classifier looks for."""

from collections.abc import Callable, Iterable
from math import sqrt

import torch
from torch import Tensor

from .precision import at_least_float32
from .schedule import NoiseSchedule


class ClassifierGuidance:
    """Adds the gradient of a classifier's log-probability to a denoiser.

    ``noise - scale * sqrt(1 - alpha_bar_t) * gradient of log p(label | z_t)``
    takes the place of the predicted noise, and the sampler does the rest.
    The gradient is autograd's, exact for any classifier that
    ``torch.func.grad`` can differentiate, in float32 or better under
    autocast as well. It is a constant to whatever is trained through the
    walk. A classifier that knows clean latents alone is asked about noisy
    ones all the same.

    Attributes:
        strengths (dict[int, float]): ``scale * sqrt(1 - alpha_bar_t)`` by t.

    Args:
        scale (float): The strength of the guidance; 0 leaves the denoiser as
            it is.
        schedule (NoiseSchedule): Its alpha-bar is read once, here.
        timesteps (Iterable[int]): The timesteps that the sampler visits.

    Raises:
        ValueError: If ``scale`` is negative.

    Source: Dhariwal & Nichol, "Diffusion Models Beat GANs on Image
    Synthesis" (2021), Algorithm 2.
    """

    def __init__(
        self,
        scale: float,
        schedule: NoiseSchedule,
        timesteps: Iterable[int],
    ) -> None:
        if not scale >= 0:
            raise ValueError(
                f'guidance_scale={scale} must be 0 (no guidance) or more'
            )
        self.scale = scale
        self.strengths = {
            t: scale * sqrt(1 - schedule.alpha_bar(t)) for t in timesteps
        }

    def guide(
        self,
        denoiser: Callable[[Tensor, int], Tensor],
        classifier: Callable[[Tensor], Tensor],
        labels: Tensor,
    ) -> Callable[[Tensor, int], Tensor]:
        """The denoiser with guidance, to be given to a sampler.

        Args:
            denoiser (Callable): Predicts the noise in ``(latent, t)``.
            classifier (Callable): Maps latents (B, ...) to logits
                (B, classes), each sample by itself.
            labels (Tensor): Integer labels of shape (B,), on the same
                device.

        Returns:
            Callable: Predicts in ``(latent, t)``; the denoiser itself where
            the scale is 0.
        """
        if self.scale == 0:
            return denoiser

        def predict(latent: Tensor, timestep: int) -> Tensor:
            noise = denoiser(latent, timestep)
            gradient = log_probability_gradient(classifier, latent, labels)
            return noise - self.strengths[timestep] * gradient

        return predict


def log_probability_gradient(
    classifier: Callable[[Tensor], Tensor], latent: Tensor, labels: Tensor
) -> Tensor:
    """The gradient of each sample's ``log softmax(classifier(z))[label]``.

    Under ``torch.no_grad`` as well, but not in ``torch.inference_mode``,
    where PyTorch would return zeros.

    Args:
        classifier (Callable): Maps latents (B, ...) to logits (B, classes).
        latent (Tensor): z, of shape (B, ...).
        labels (Tensor): Integer labels of shape (B,).

    Returns:
        Tensor: Of the latent's shape and dtype, detached.

    Raises:
        RuntimeError: In ``torch.inference_mode``.
    """
    # A compiled graph could not ask, and breaks nothing by not asking.
    compiling = torch.compiler.is_compiling()
    if not compiling and torch.is_inference_mode_enabled():
        raise RuntimeError(
            'classifier guidance needs gradients, which '
            'torch.inference_mode() rules out: use torch.no_grad()'
        )

    def log_probability(latent: Tensor) -> Tensor:
        logits = at_least_float32(classifier(latent))
        return logits.log_softmax(dim=1).gather(1, labels[:, None]).sum()

    # Autocast, which meta tensors do not know, would put the backward pass too
    # in half precision. What is switched off by no_grad is the graph of the
    # gradient itself.
    device = 'cpu' if latent.is_meta else latent.device.type
    with torch.no_grad(), torch.autocast(device, enabled=False):
        return torch.func.grad(log_probability)(latent.detach())
