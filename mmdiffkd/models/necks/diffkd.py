"""DiffKD: the student's feature is a noisy one; denoise, then compare."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmdiffkd.registry import MODELS

from ..diffusion import (
    AdaptiveNoiseMatching,
    BottleneckDenoiser,
    DDIMSampler,
    LinearAutoencoder,
    MLPDenoiser,
    NoiseSchedule,
)
from ..diffusion.blocks import batch_norm, is_map, pointwise
from ..diffusion.checkpointing import checkpointed
from ..diffusion.memory_format import best_memory_format, lay_out
from ..diffusion.precision import at_least_float32
from .aligned import Aligned
from .base import DistillNeck, check_batch_statistics, check_channel_arguments


@MODELS.register_module()
class DiffKDNeck(DistillNeck):
    """Denoise the student's feature by a diffusion model of the teacher's.

    The stages, each of which can be called alone:

    1. :meth:`project`: the student's feature becomes a latent.
    2. :meth:`encode`: so does the teacher's, the target.
    3. :meth:`match_noise` mixes noise into the student's latent, Eq. (8),
       and :meth:`refine` walks it to the clean estimate, Eq. (5), and
       projects that once more; :meth:`denoise` is both.
    4. :meth:`diffusion_loss` trains the denoiser on the target, Eq. (4).

    What learns from what: the distance between the two tensors returned
    trains the student, the projections, noise matching *and the denoiser*,
    through all steps (but not its time embedding, which batch norm cancels
    there: see its class). ``loss_diffusion`` reaches the denoiser alone and
    ``loss_autoencoder`` the autoencoder alone; the target is detached.

    Half precision: the schedule, the walk, gamma and both losses are computed
    in float32 or better, under autocast as well as in a converted module.

    Several processes: each draws noise and timesteps of its own, and batch
    norm sees the batch of one, unless the recipe sets ``sync_bn``.

    Args:
        student_channels (int, optional): Channels of the student's tensor.
            A distiller fills in None; standing alone it has to be given.
            Defaults to None.
        teacher_channels (int, optional): Likewise for the teacher's.
            Defaults to None.
        latent_channels (int, optional): Channels of the autoencoder's code.
            The paper uses 1024 for ResNet-34 and ResNet-50 teachers, 768
            for Swin-L. Defaults to None, no autoencoder: the latent is the
            teacher's feature itself.
        feature (str): 'map' for (B, C, H, W), 'vector' for (B, C), logits
            say, with linear layers. Defaults to 'map'.
            A distiller reads it off the shape of what is tapped.
        diffusion_weight (float): Lambda 1 of Eq. (9). Defaults to 1.0.
        autoencoder_weight (float): Lambda 2 of Eq. (9). Defaults to 1.0.
        denoiser (dict, optional): Config that overrides parts of the default
            denoiser, ``dict(reduction=1)`` say, or names another by ``type``.
            Defaults to None: :class:`BottleneckDenoiser` for maps,
            :class:`MLPDenoiser` for vectors.
        noise_matching (bool): Whether to mix noise in; without, the student's
            latent itself enters the walk. Defaults to True.
        num_inference_steps (int): Denoising steps. Defaults to 5.
        start_timestep (int): Where the walk starts, see
            :class:`DDIMSampler`. Defaults to 500. The default visits 400,
            300, 200, 100, 0.
        num_train_timesteps (int): Length of the schedule; the diffusion loss
            draws from all of it. Defaults to 1000.
        standardize_teacher (bool): Whether to bring each channel of the
            teacher's feature to zero mean and unit variance, the noise's,
            before anything else (batch norm without parameters). The
            standardised feature is then what the student is compared with.
            Not in the released code. Defaults to False.
        grad_steps (int, optional): In how many denoising steps, the last
            ones, the distance's gradient passes through the denoiser; see
            :class:`DDIMSampler`. Fewer are cheaper; what comes out and batch
            norm's statistics are the same. Student, projections and noise
            matching get a gradient with any number, the denoiser with 0 from
            the diffusion loss alone. Defaults to None, all.
        with_cp (bool): Whether the student's way, from its projection
            through every denoising step to the last projection, is under
            activation checkpointing: only the latents between are kept, and
            the backward pass computes the rest once more. Results, gradients
            and batch norm's statistics are the same; memory falls and time
            rises. Defaults to False.
        init_cfg (dict, optional): Initialisation. Defaults to None,
            PyTorch's.

    Raises:
        ValueError: If an argument is out of range or channels are missing.

    Source: Huang et al., "Knowledge Diffusion for Distillation" (2023). The
    projection after the walk is in the released code alone.
    """

    def __init__(
        self,
        student_channels: int | None = None,
        teacher_channels: int | None = None,
        latent_channels: int | None = None,
        feature: str = 'map',
        diffusion_weight: float = 1.0,
        autoencoder_weight: float = 1.0,
        denoiser: dict | None = None,
        noise_matching: bool = True,
        num_inference_steps: int = 5,
        start_timestep: int = 500,
        num_train_timesteps: int = 1000,
        standardize_teacher: bool = False,
        grad_steps: int | None = None,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.set_channels(student_channels, teacher_channels)
        self.feature = feature
        self.diffusion_weight = diffusion_weight
        self.autoencoder_weight = autoencoder_weight
        self.with_cp = with_cp

        self.standardization = nn.Identity()
        if standardize_teacher:
            self.standardization = batch_norm(
                teacher_channels, feature, affine=False
            )
        self.autoencoder = None
        channels = teacher_channels
        if latent_channels is not None:
            check_channel_arguments(latent_channels=latent_channels)
            channels = latent_channels
            self.autoencoder = LinearAutoencoder(
                teacher_channels, channels, feature
            )
        self.channels = channels
        self.student_projection = pointwise(
            student_channels, channels, feature
        )
        self.noise_matching = None
        if noise_matching:
            self.noise_matching = AdaptiveNoiseMatching(channels, feature)
        default = 'BottleneckDenoiser' if is_map(feature) else 'MLPDenoiser'
        self.denoiser = MODELS.build(
            {
                '_scope_': 'mmdiffkd',
                'type': default,
                'channels': channels,
                **(denoiser or {}),
            }
        )
        self.output_projection = nn.Sequential(
            pointwise(channels, channels, feature),
            batch_norm(channels, feature),
        )
        self.schedule = NoiseSchedule(num_train_timesteps)
        self.sampler = DDIMSampler(
            num_inference_steps, start_timestep, self.schedule, grad_steps
        )
        if self.denoiser.num_timesteps < num_train_timesteps:
            raise ValueError(
                f'num_train_timesteps={num_train_timesteps} exceeds the '
                f'{self.denoiser.num_timesteps} timesteps of the denoiser: '
                f'set denoiser=dict(num_timesteps={num_train_timesteps})'
            )

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        noise: Tensor | None = None,
        diffusion_noise: Tensor | None = None,
        timesteps: Tensor | None = None,
    ) -> Aligned:
        """Denoise the student's feature and train the denoiser.

        The random tensors are those that :meth:`draw` makes; one left out is
        drawn from PyTorch's default generator.

        Args:
            student (Tensor): (B, student_channels, H, W) or
                (B, student_channels).
            teacher (Tensor): (B, teacher_channels, H, W) or
                (B, teacher_channels), of the same H and W.
            noise (Tensor, optional): Standard normal of the latent's shape,
                for noise matching. Defaults to None.
            diffusion_noise (Tensor, optional): The same for the diffusion
                loss. Defaults to None.
            timesteps (Tensor, optional): Integers of shape (B,) for the
                diffusion loss. Defaults to None.

        Returns:
            Aligned: The refined latent and the target, both
            (B, latent_channels, ...); ``loss_diffusion`` and, with an
            autoencoder, ``loss_autoencoder``; with noise matching the
            metrics ``gamma`` and ``gamma_std``, its mean and standard
            deviation over the batch.

        Raises:
            ValueError: If a tensor is not what ``feature`` and the channels
                say, or batch norm cannot be trained on it.
        """
        latent, gamma = self._run(self._start, student, noise)
        target, autoencoder_loss = self.encode(teacher)
        refined = self.refine(latent)
        diffusion_loss = self.diffusion_loss(
            target, diffusion_noise, timesteps
        )

        losses = {'loss_diffusion': self.diffusion_weight * diffusion_loss}
        if autoencoder_loss is not None:
            losses['loss_autoencoder'] = (
                self.autoencoder_weight * autoencoder_loss
            )
        metrics = {}
        if gamma is not None:
            gamma = gamma.detach()
            metrics['gamma'] = gamma.mean()
            metrics['gamma_std'] = gamma.std(correction=0)
        return Aligned(refined, target, losses, metrics)

    def draw(
        self,
        student: Tensor,
        teacher: Tensor,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Draw what is random in one forward pass.

        Args:
            student (Tensor): The student's tensor.
            teacher (Tensor): The teacher's; its size is the latent's.
            generator (torch.Generator, optional): Source of randomness; on
                the tensors' device nothing is copied. Defaults to None,
                PyTorch's default generator.

        Returns:
            dict[str, Tensor]: ``noise``, ``diffusion_noise`` and
            ``timesteps``, on the tensors' device, by the names of
            :meth:`forward`'s arguments.
        """
        batch_size, _, *size = teacher.shape
        shape = (batch_size, self.channels, *size)
        return {
            'noise': self._draw_noise(shape, teacher.device, generator),
            'diffusion_noise': self._draw_noise(
                shape, teacher.device, generator
            ),
            'timesteps': self._draw_timesteps(
                batch_size, teacher.device, generator
            ),
        }

    def project(self, student: Tensor) -> Tensor:
        """Bring the student's feature to the latent's channels.

        Args:
            student (Tensor): (B, student_channels, ...).

        Returns:
            Tensor: The student's latent, (B, latent_channels, ...).
        """
        self._check('student', student, self.student_channels)
        return self.student_projection(self._lay_out(student))

    def encode(self, teacher: Tensor) -> tuple[Tensor, Tensor | None]:
        """Make the target, Eq. (6).

        Args:
            teacher (Tensor): (B, teacher_channels, ...).

        Returns:
            tuple[Tensor, Tensor | None]: The detached target,
            (B, latent_channels, ...), and the autoencoder's unweighted
            reconstruction loss, None without an autoencoder.
        """
        self._check('teacher', teacher, self.teacher_channels)
        teacher = self.standardization(self._lay_out(teacher.detach()))
        if self.autoencoder is None:
            return teacher, None
        code = self.autoencoder.encode(teacher)
        decoded = at_least_float32(self.autoencoder.decode(code))
        loss = _mean_square(decoded - teacher)
        return code.detach(), loss

    def match_noise(
        self, student_latent: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Mix noise into the student's latent, Eq. (8).

        Args:
            student_latent (Tensor): (B, latent_channels, ...).
            noise (Tensor, optional): Standard normal of the same shape.
                Defaults to None, drawn.

        Returns:
            tuple[Tensor, Tensor | None]: What the walk starts from, of the
            same shape, and gamma of shape (B,); the latent unchanged and
            None without noise matching.
        """
        if self.noise_matching is None:
            return student_latent, None
        if noise is None:
            noise = self._draw_noise(
                student_latent.shape, student_latent.device
            )
        return self.noise_matching(student_latent, self._lay_out(noise))

    def refine(
        self, latent: Tensor, trajectory: list[Tensor] | None = None
    ) -> Tensor:
        """Walk to the clean estimate, Eq. (5), and project it.

        Args:
            latent (Tensor): What the walk starts from,
                (B, latent_channels, ...).
            trajectory (list[Tensor], optional): Takes the latent after each
                step of the walk. Defaults to None.

        Returns:
            Tensor: The refined latent, of the same shape.
        """
        latent = self.sampler.sample(
            partial(self._run, self._predict_noise), latent, trajectory
        )
        refined = self._run(self.output_projection, latent.to(self._dtype))
        # The distance may hand back a gradient that lies otherwise.
        return lay_out(refined)

    def denoise(
        self, student_latent: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """Noise matching, the walk and the projection after it.

        Args:
            student_latent (Tensor): (B, latent_channels, ...).
            noise (Tensor, optional): Standard normal of the same shape.
                Defaults to None, drawn.

        Returns:
            Tensor: The refined latent, of the same shape.
        """
        latent, _ = self.match_noise(student_latent, noise)
        return self.refine(latent)

    def diffusion_loss(
        self,
        target: Tensor,
        noise: Tensor | None = None,
        timesteps: Tensor | None = None,
    ) -> Tensor:
        """The denoiser's error on the diffused target, Eq. (4).

        Args:
            target (Tensor): The detached target, (B, latent_channels, ...).
            noise (Tensor, optional): Standard normal of the same shape.
                Defaults to None, drawn.
            timesteps (Tensor, optional): Integers of shape (B,). Defaults to
                None, drawn uniformly from the whole schedule.

        Returns:
            Tensor: The mean squared error, a scalar, unweighted.
        """
        if noise is None:
            noise = self._draw_noise(target.shape, target.device)
        if timesteps is None:
            timesteps = self._draw_timesteps(len(target), target.device)
        noise = self._lay_out(noise)
        # Nothing is named that need not outlive its line: maps are large.
        return _mean_square(
            at_least_float32(
                self._predict_noise(
                    self.schedule.add_noise(target, noise, timesteps),
                    timesteps,
                )
            )
            - noise
        )

    @torch.no_grad()
    def trajectory(
        self,
        student: Tensor,
        teacher: Tensor,
        noise: Tensor | None = None,
    ) -> list[tuple[str, Tensor]]:
        """Every stage of the student's latent, for pictures.

        All stages of the student are seen through the projection after the
        walk, which is how the distance compares the last one with the
        target; before it, a latent has no reason to look like the target.

        Call it in eval mode: in train mode it moves the statistics of batch
        norm, as any forward pass does.

        Args:
            student (Tensor): (B, student_channels, ...).
            teacher (Tensor): (B, teacher_channels, ...).
            noise (Tensor, optional): Standard normal of the latent's shape.
                Defaults to None, drawn.

        Returns:
            list[tuple[str, Tensor]]: Captions and latents in order: the
            student's, after noise matching (if there is any), after each
            step of the walk, captioned by the timestep it leads to, and the
            teacher's target.
        """
        latent = self.project(student)
        stages = [('student', latent)]
        if self.noise_matching is not None:
            latent, _ = self.match_noise(latent, noise)
            stages.append(('with noise', latent))
        steps: list[Tensor] = []
        self.sampler.sample(self._predict_noise, latent, steps)
        captions = [f't = {t}' for t in self.sampler.timesteps[1:]]
        stages += zip([*captions, 'denoised'], steps)
        seen = [
            (caption, self.output_projection(stage.to(self._dtype)))
            for caption, stage in stages
        ]
        return [*seen, ('teacher', self.encode(teacher)[0])]

    @property
    def _dtype(self) -> torch.dtype:
        return self.student_projection.weight.dtype

    def _check(self, side: str, tensor: Tensor, channels: int) -> None:
        self.check_side(side, tensor, channels)
        if self.training:
            check_batch_statistics(side, tensor)

    def _start(
        self, student: Tensor, noise: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        return self.match_noise(self.project(student), noise)

    def _run(self, stage: Callable[..., Any], *inputs: Any) -> Any:
        if self.with_cp and torch.is_grad_enabled():
            return checkpointed(self, stage, *inputs)
        return stage(*inputs)

    def _predict_noise(self, latent: Tensor, timestep: Tensor | int) -> Tensor:
        if not self._is_own_denoiser:
            latent = lay_out(latent, torch.contiguous_format)
        return self.denoiser(latent, timestep)

    @property
    def _is_own_denoiser(self) -> bool:
        """Whether the denoiser is known to take maps in any memory format.

        On a CPU, torch 2.11 crashes in the backward pass of group norm over
        a channels-last tensor that needs no gradient.
        """
        return type(self.denoiser) in (BottleneckDenoiser, MLPDenoiser)

    def _lay_out(self, tensor: Tensor) -> Tensor:
        return lay_out(tensor, self._memory_format(tensor.device))

    def _memory_format(self, device: torch.device) -> torch.memory_format:
        if not self._is_own_denoiser:
            return torch.contiguous_format
        return best_memory_format(self.channels, device, self._dtype)

    def _draw_noise(
        self,
        shape: tuple[int, ...],
        device: torch.device,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        # Drawn channels last in any layout: a seed gives the same noise on
        # every device and in any precision.
        batch_size, channels, *size = shape
        noise = torch.randn(
            (batch_size, *size, channels),
            generator=generator,
            dtype=self._dtype,
            device=generator.device if generator else device,
        )
        return noise.to(device).movedim(-1, 1)

    def _draw_timesteps(
        self,
        batch_size: int,
        device: torch.device,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        return torch.randint(
            self.schedule.num_train_timesteps,
            (batch_size,),
            generator=generator,
            device=generator.device if generator else device,
        ).to(device)


def _mean_square(error: Tensor) -> Tensor:
    # The gradients of `mse_loss` and `mean` lie plain, however the error
    # lies, and the former keeps both operands.
    return error.square().sum() / error.numel()
