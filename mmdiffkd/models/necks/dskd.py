"""DSKD (reconstruction): the student learns from its own denoised feature."""

import torch
from torch import Tensor, nn

from mmdiffkd.registry import MODELS

from ..diffusion import NoiseSchedule
from ..diffusion.guidance import ClassifierGuidance
from .aligned import Aligned
from .diffkd import DiffKDNeck
from .pooling import average, classify


class DiffusedStart(nn.Module):
    """Diffuses to one timestep, in the place of noise matching.

    Args:
        schedule (NoiseSchedule): The schedule.
        timestep (int): Where to.
    """

    def __init__(self, schedule: NoiseSchedule, timestep: int) -> None:
        super().__init__()
        self.schedule = schedule
        self.timestep = timestep

    def forward(self, latent: Tensor, noise: Tensor) -> tuple[Tensor, None]:
        """Diffuse (B, ...) with noise of the same shape; there is no gamma."""
        timesteps = torch.full(
            (len(latent),), self.timestep, device=latent.device
        )
        return self.schedule.add_noise(latent, noise, timesteps), None


@MODELS.register_module()
class DSKDNeck(DiffKDNeck):
    """DSKD (reconstruction): denoise the student's feature for itself.

    Of the method only the abstract was at hand: the teacher's classifier
    guides the sampling that denoises the student's feature by a light-weight
    diffusion model, and the denoised feature is teacher to the original one.
    This is a reconstruction from that and from the published parts
    (:class:`DiffKDNeck`'s diffusion model, classifier guidance, LSH loss);
    what is not known is an argument, and no default is the authors'.

    1. :meth:`project`: the student's feature gets the teacher's channels,
       so that the teacher's classifier can read it. This is the student's
       side of what is compared.
    2. The walk of :class:`DDIMSampler` denoises it, each predicted noise
       corrected by :class:`ClassifierGuidance`. The classifier is the
       teacher's, passed with every call and never kept; it sees maps averaged
       over positions. What comes out is the teacher's side.
    3. :meth:`diffusion_loss` trains the denoiser.

    What learns from what: with a detached result the distance between the
    two trains the student and its projection *alone*, and the denoiser
    learns from ``loss_diffusion`` alone, which reaches nothing else. With
    ``detach_denoised=False`` the distance also passes through the walk: into
    the denoiser (but not its time embedding, see its class), noise matching
    and, once more, the student, with the guidance's gradient as a constant.
    There is no projection after the walk.

    The walk makes a feature longer. A distance to the detached result that
    counts lengths, a squared error, therefore has no minimum, and training
    diverges within some iterations; LSH without ``with_l2`` counts
    directions.

    The walk moves batch norm's statistics in train mode, those of one
    process, as in DiffKD.
    Pictures (:meth:`trajectory`) show it without guidance.

    Args:
        student_channels (int, optional): Channels of the student's tensor.
            A distiller fills in None; standing alone it has to be given.
            Defaults to None.
        teacher_channels (int, optional): Likewise for the teacher's, from
            which ``teacher_head`` reads. Defaults to None.
        feature (str): 'map' for (B, C, H, W), 'vector' for (B, C). Defaults
            to 'map'.
            A distiller reads it off the shape of what is tapped.
        always_project (bool): Whether the student's feature is projected
            even if it has the teacher's channels already. Defaults to False.
        diffusion_on (str): What the denoiser learns to denoise, the
            'teacher' feature or the projected 'student' feature. Defaults to
            'teacher'.
        diffusion_weight (float): Weight of the diffusion loss. Defaults to
            1.0.
        denoiser (dict, optional): See :class:`DiffKDNeck`. Defaults to None.
        start (str): What enters the walk: 'feature', the projected feature
            as it is; 'noise_matching', its mixture with noise by a learned
            gate, only with ``detach_denoised=False``; 'diffused', the
            feature diffused to the first timestep visited. Defaults to
            'feature'.
        num_inference_steps (int): Denoising steps. Defaults to 5.
        start_timestep (int): Where the walk starts, see
            :class:`DDIMSampler`. Defaults to 500.
        num_train_timesteps (int): Length of the schedule. Defaults to 1000.
        guidance_scale (float): Strength of the guidance; 0 is plain
            denoising. Defaults to 1.0.
        guidance_label (str): The class that the walk is led to: 'gt', the
            label, or 'teacher', the class that the teacher predicts.
            Defaults to 'gt'.
        detach_denoised (bool): Whether the denoised feature is a constant to
            the distance. Defaults to True.
        pooled (bool): Whether maps are averaged over positions before they
            are compared, as the published LSH loss takes them. Its bias is
            then better not the 'median', which is taken over the positions
            of the teacher's map. Defaults to False.
        init_cfg (dict, optional): Initialisation. Defaults to None,
            PyTorch's.

    Raises:
        ValueError: If an argument is out of range, channels are missing, or
            noise matching could not learn.

    Source: after Wang et al., "Teacher-Guided Student Self-Knowledge
    Distillation Using Diffusion Model" (2026), abstract; a reconstruction.
    """

    def __init__(
        self,
        student_channels: int | None = None,
        teacher_channels: int | None = None,
        feature: str = 'map',
        always_project: bool = False,
        diffusion_on: str = 'teacher',
        diffusion_weight: float = 1.0,
        denoiser: dict | None = None,
        start: str = 'feature',
        num_inference_steps: int = 5,
        start_timestep: int = 500,
        num_train_timesteps: int = 1000,
        guidance_scale: float = 1.0,
        guidance_label: str = 'gt',
        detach_denoised: bool = True,
        pooled: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        for name, value, choices in (
            ('diffusion_on', diffusion_on, ('teacher', 'student')),
            ('start', start, ('feature', 'noise_matching', 'diffused')),
            ('guidance_label', guidance_label, ('gt', 'teacher')),
        ):
            if value not in choices:
                raise ValueError(f'{name}={value!r} is not one of {choices}')
        if start == 'noise_matching' and detach_denoised:
            raise ValueError(
                "start='noise_matching' with detach_denoised=True: noise "
                'matching learns through the denoised feature, and would get '
                'no gradient at all. Set detach_denoised=False, or start='
                "'feature'"
            )
        super().__init__(
            student_channels,
            teacher_channels,
            feature=feature,
            diffusion_weight=diffusion_weight,
            denoiser=denoiser,
            noise_matching=start == 'noise_matching',
            num_inference_steps=num_inference_steps,
            start_timestep=start_timestep,
            num_train_timesteps=num_train_timesteps,
            init_cfg=init_cfg,
        )
        if student_channels == teacher_channels and not always_project:
            self.student_projection = nn.Identity()
        if start == 'diffused':
            self.noise_matching = DiffusedStart(
                self.schedule, self.sampler.timesteps[0]
            )
        self.output_projection = nn.Identity()
        self.guidance = ClassifierGuidance(
            guidance_scale, self.schedule, self.sampler.timesteps
        )
        self.diffusion_on = diffusion_on
        self.guidance_label = guidance_label
        self.detach_denoised = detach_denoised
        self.pooled = pooled

    @property
    def supplied(self) -> tuple[str, ...]:
        """What it wants a distiller to supply, by :meth:`forward`'s names."""
        if self.guidance.scale == 0:
            return ()
        if self.guidance_label == 'teacher':
            return 'teacher_head', 'teacher_logits'
        return 'teacher_head', 'gt_labels'

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        teacher_head: nn.Module | None = None,
        gt_labels: Tensor | None = None,
        teacher_logits: Tensor | None = None,
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
            teacher_head (nn.Module, optional): The teacher's frozen
                classifier, (B, teacher_channels) to (B, classes). Defaults
                to None, which guidance does not allow.
            gt_labels (Tensor, optional): Labels (B,), for
                ``guidance_label='gt'``. Defaults to None.
            teacher_logits (Tensor, optional): The teacher's logits
                (B, classes), for ``guidance_label='teacher'``. Defaults to
                None.
            noise (Tensor, optional): Standard normal of the teacher's shape,
                for the start of the walk. Defaults to None.
            diffusion_noise (Tensor, optional): The same for the diffusion
                loss. Defaults to None.
            timesteps (Tensor, optional): Integers of shape (B,) for the
                diffusion loss. Defaults to None.

        Returns:
            Aligned: The projected feature and the denoised one, both
            (B, teacher_channels, ...), or (B, teacher_channels) if
            ``pooled``, the latter carrying gradients if
            ``detach_denoised=False``; ``loss_diffusion``; with noise matching
            the metrics ``gamma`` and ``gamma_std``.

        Raises:
            TypeError: If what :attr:`supplied` names is missing.
            ValueError: If a tensor is not what ``feature`` and the channels
                say, or batch norm cannot be trained on it.
        """
        original = self.project(student)
        target, _ = self.encode(teacher)
        if self.diffusion_on == 'student':
            target = original.detach()
        predict = self._predict_noise
        if self.supplied:
            by_teacher = self.guidance_label == 'teacher'
            labels = teacher_logits if by_teacher else gt_labels
            if teacher_head is None or labels is None:
                raise TypeError(
                    f'guidance_scale={self.guidance.scale} needs '
                    f'{" and ".join(self.supplied)} in each call. In an '
                    "entry, name the classifier: teacher_head='head.fc'"
                )
            if by_teacher:
                labels = labels.argmax(dim=1)
            predict = self.guidance.guide(
                predict, lambda latent: classify(latent, teacher_head), labels
            )
        tracked = torch.is_grad_enabled() and not self.detach_denoised
        with torch.set_grad_enabled(tracked):
            latent, gamma = self.match_noise(original, noise)
            denoised = self.sampler.sample(predict, latent)
        diffusion_loss = self.diffusion_loss(
            target, diffusion_noise, timesteps
        )

        losses = {'loss_diffusion': self.diffusion_weight * diffusion_loss}
        metrics = {}
        if gamma is not None:
            gamma = gamma.detach()
            metrics['gamma'] = gamma.mean()
            metrics['gamma_std'] = gamma.std(correction=0)
        if self.pooled:
            original, denoised = average(original), average(denoised)
        return Aligned(original, denoised, losses, metrics)

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.denoiser.parameters()).dtype
