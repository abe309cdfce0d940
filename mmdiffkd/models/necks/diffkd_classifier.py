"""DiffKD seen by the teacher's classifier: logits of the denoised feature."""

import torch
from torch import Tensor, nn

from mmdiffkd.registry import MODELS

from .aligned import Aligned
from .diffkd import DiffKDNeck
from .pooling import classify


@MODELS.register_module()
class DiffKDClassifierNeck(DiffKDNeck):
    """Hand on what the teacher's classifier says of the denoised feature.

    :class:`DiffKDNeck` without an autoencoder; the refined feature and the
    teacher's, averaged over positions where they are maps, then go through
    the teacher's frozen classifier, and the two logits are what is compared.
    It is one reading of "the denoised student output is decoupled at the
    logits": the others are DKD on the raw logits, and behind
    ``DiffKDNeck(feature='vector')``.

    What learns from what: as in :class:`DiffKDNeck`; the gradient passes
    through the classifier, which does not learn.

    Args:
        student_channels (int, optional): Channels of the student's tensor.
            A distiller fills in None; standing alone it has to be given.
            Defaults to None.
        teacher_channels (int, optional): Likewise for the teacher's, from
            which ``teacher_head`` reads. Defaults to None.
        feature (str): 'map' for (B, C, H, W), 'vector' for (B, C). Defaults
            to 'map'.
            A distiller reads it off the shape of what is tapped.
        diffusion_weight (float): Weight of the diffusion loss. Defaults to
            1.0.
        denoiser (dict, optional): See :class:`DiffKDNeck`. Defaults to None.
        noise_matching (bool): Whether to mix noise in. Defaults to True.
        num_inference_steps (int): Denoising steps. Defaults to 5.
        start_timestep (int): Where the walk starts. Defaults to 500.
        num_train_timesteps (int): Length of the schedule. Defaults to 1000.
        grad_steps (int, optional): See :class:`DiffKDNeck`. Defaults to None.
        with_cp (bool): Likewise. Defaults to False.
        init_cfg (dict, optional): Initialisation. Defaults to None,
            PyTorch's.

    Raises:
        ValueError: If an argument is out of range or channels are missing.

    Source: Wang & Zhu, "Decoupled Knowledge Distillation Based on Diffusion
    Model" (2024), which leaves open which logits are meant.
    """

    to_classes = True

    def __init__(
        self,
        student_channels: int | None = None,
        teacher_channels: int | None = None,
        feature: str = 'map',
        diffusion_weight: float = 1.0,
        denoiser: dict | None = None,
        noise_matching: bool = True,
        num_inference_steps: int = 5,
        start_timestep: int = 500,
        num_train_timesteps: int = 1000,
        grad_steps: int | None = None,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(
            student_channels,
            teacher_channels,
            feature=feature,
            diffusion_weight=diffusion_weight,
            denoiser=denoiser,
            noise_matching=noise_matching,
            num_inference_steps=num_inference_steps,
            start_timestep=start_timestep,
            num_train_timesteps=num_train_timesteps,
            grad_steps=grad_steps,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        teacher_head: nn.Module,
        noise: Tensor | None = None,
        diffusion_noise: Tensor | None = None,
        timesteps: Tensor | None = None,
    ) -> Aligned:
        """Denoise the student's feature and classify it.

        Args:
            student (Tensor): (B, student_channels, H, W) or
                (B, student_channels).
            teacher (Tensor): (B, teacher_channels, H, W) or
                (B, teacher_channels), of the same H and W.
            teacher_head (nn.Module): The teacher's frozen classifier,
                (B, teacher_channels) to (B, classes).
            noise (Tensor, optional): See :class:`DiffKDNeck`. Defaults to
                None.
            diffusion_noise (Tensor, optional): Likewise. Defaults to None.
            timesteps (Tensor, optional): Likewise. Defaults to None.

        Returns:
            Aligned: Logits (B, classes) of the refined feature and of the
            teacher's; losses and metrics are DiffKD's.

        Raises:
            ValueError: If a tensor is not what ``feature`` and the channels
                say, or batch norm cannot be trained on it.
        """
        refined, target, losses, metrics = super().forward(
            student, teacher, noise, diffusion_noise, timesteps
        )
        logits = classify(refined, teacher_head)
        with torch.no_grad():
            teacher_logits = classify(target, teacher_head)
        return Aligned(logits, teacher_logits, losses, metrics)
