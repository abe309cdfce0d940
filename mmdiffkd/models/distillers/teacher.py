"""The teacher, frozen and kept out of everything that is trained or saved."""

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import Tensor, nn

from mmdiffkd.utils import (
    load_config,
    load_weights,
    plain_state_dict,
    read_checkpoint,
)
from mmdiffkd.utils.naming import did_you_mean

from .dry_run import dry_run, forward_to_taps
from .taps import Taps

_KEYS = ('config', 'checkpoint', 'strict', 'trusted')
_MISSING = object()


def build_from_config(config: Config) -> nn.Module:
    """Build the model of a config under that config's own scope.

    Args:
        config (Config): A whole config, as a recipe's file gives it.

    Returns:
        nn.Module: The model; a top-level ``data_preprocessor`` goes to it,
        as MMEngine's runner does.
    """
    model = config.model.copy()
    if config.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', config.data_preprocessor)
    if config.get('default_scope') is not None:
        model.setdefault('_scope_', config.default_scope)
    return MMENGINE_MODELS.build(model)


class FrozenTeacher(nn.Module):
    """A network that teaches and never changes.

    The network lives outside ``_modules``: it is in no ``parameters()``, no
    state dict, no optimizer, no DDP bucket and no EMA copy. It stays in eval
    mode (dropout and stochastic depth too) and follows device and dtype
    moves. A deep copy shares it, so that a move of the copy moves it too.

    Args:
        config (str, Path, dict or Config): The teacher's whole config: a
            path, a ``package::name``, or the config itself.
        checkpoint (str, Path or None): Its weights, a file or an https URL:
            a plain model's, an MMEngine run's, or a distiller's checkpoint.
            None means a random teacher, on purpose; it has to be said.
        strict (bool): Refuse missing and unexpected keys. Defaults to True.
        trusted (bool): Unpickle anything in the checkpoint, which runs code
            from it. Defaults to False.

    Raises:
        ValueError: If ``config`` or ``checkpoint`` is not given.
    """

    def __init__(
        self,
        config: str | dict | Config = None,
        checkpoint: str | None = _MISSING,
        strict: bool = True,
        trusted: bool = False,
        **unknown,
    ) -> None:
        super().__init__()
        for key in unknown:
            raise ValueError(
                f'`teacher` has no key {key!r}. ' + did_you_mean(key, _KEYS)
            )
        if config is None:
            raise ValueError(
                '`teacher` has no `config`. Add teacher=dict(config=...), a '
                "path, a 'package::name' or the config itself."
            )
        if checkpoint is _MISSING:
            raise ValueError(
                '`teacher` has no `checkpoint`. Add teacher=dict('
                'checkpoint=...), a file or an https URL; None for a random '
                'teacher, if that is what you want.'
            )
        self.checkpoint = checkpoint
        self.strict = strict
        self.trusted = trusted
        config = load_config(config)
        if 'model' not in config:
            raise ValueError(
                '`teacher.config` is no whole config: it has no key `model`. '
                'Give dict(model=..., default_scope=...) or a file.'
            )
        network = revert_sync_batchnorm(build_from_config(config))
        network.requires_grad_(False)
        network.eval()
        object.__setattr__(self, 'network', network)
        self.taps: Taps | None = None
        self._heads: list[str] = []
        self._renormalize: tuple[Tensor, Tensor] | None = None

    def attach(
        self, taps: list[str], input_size: tuple[int, int]
    ) -> dict[str, list[torch.Size]]:
        """Tap the network and find the shapes, see :func:`dry_run`."""
        self.taps = Taps(self.network, taps, 'teacher')
        shapes, self._heads = dry_run(
            self.network, self.taps, input_size, training=False
        )
        return shapes

    def init_weights(self) -> None:
        """Load the checkpoint, or initialise a random teacher.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the checkpoint does not fit the config.
        """
        if self.checkpoint is None:
            # Random is random: no part fetches weights of its own.
            for module in self.network.modules():
                if 'Pretrained' in str(getattr(module, 'init_cfg', None)):
                    module.init_cfg = None
            if hasattr(self.network, 'init_weights'):
                self.network.init_weights()
            self.network.eval()
            print_log(
                'The teacher is random (teacher.checkpoint=None).', 'current'
            )
            return
        checkpoint = read_checkpoint(self.checkpoint, trusted=self.trusted)
        load_weights(
            self.network,
            plain_state_dict(checkpoint),
            str(self.checkpoint),
            self.strict,
        )
        # Some networks work out tables from their weights here.
        self.network.eval()
        print_log(f'Teacher weights: {self.checkpoint}', 'current')

    def match_input(self, student_preprocessor: nn.Module) -> None:
        """Prepare for input normalised by the student's preprocessor.

        Args:
            student_preprocessor (nn.Module): What normalises the images of
                a training step. Where the teacher's own differs in mean,
                standard deviation or channel order, its input is converted.

        Raises:
            ValueError: If the two cannot be converted into each other.
        """
        ours = getattr(self.network, 'data_preprocessor', None)
        student, teacher = map(_normalization, (student_preprocessor, ours))
        if student == teacher or teacher is None or student is None:
            return
        s_mean, s_std, s_rgb = student
        t_mean, t_std, t_rgb = teacher
        flip = s_rgb != t_rgb
        if flip and len(s_mean) != 3:
            raise ValueError(
                'student and teacher read colour channels in opposite order '
                f'(bgr_to_rgb {s_rgb} and {t_rgb}) and have '
                f'{len(s_mean)} channels. Use one channel order for both.'
            )
        order = [2, 1, 0] if flip else list(range(len(s_mean)))
        s_mean = torch.tensor(s_mean)[order].view(-1, 1, 1)
        s_std = torch.tensor(s_std)[order].view(-1, 1, 1)
        t_mean = torch.tensor(t_mean).view(-1, 1, 1)
        t_std = torch.tensor(t_std).view(-1, 1, 1)
        self._flip = flip
        self._renormalize = s_std / t_std, (s_mean - t_mean) / t_std
        print_log(
            'Teacher and student normalise images differently; the '
            "teacher's input is converted.",
            'current',
        )

    @torch.no_grad()
    def forward(
        self, inputs: Tensor, taps: list[str]
    ) -> dict[str, list[Tensor]]:
        """Run backbone and neck, and the heads that hold a tap.

        Args:
            inputs (Tensor): The student's normalised images (B, 3, H, W).
            taps (list[str]): The taps to read.

        Returns:
            dict[str, list[Tensor]]: Each tap's tensors, one a level.
        """
        if next(self.network.parameters()).device != inputs.device:
            self.to(inputs.device)
        if self._renormalize is not None:
            scale, shift = self._renormalize
            if self._flip:
                inputs = inputs.flip(1)
            inputs = inputs * scale + shift
        with self.taps.record(taps):
            forward_to_taps(self.network, inputs, self._heads)
        tensors = {tap: self.taps.read(tap) for tap in taps}
        self.taps.clear()
        return tensors

    def train(self, mode: bool = True) -> 'FrozenTeacher':
        """Stay in eval mode."""
        return super().train(False)

    def _apply(self, fn, recurse: bool = True) -> 'FrozenTeacher':
        super()._apply(fn)
        self.network._apply(fn)
        device = next(self.network.parameters()).device
        if hasattr(self.network, '_set_device'):
            self.network._set_device(device)
        if self._renormalize is not None:
            self._renormalize = tuple(fn(t) for t in self._renormalize)
        # Tables that some networks keep beside their parameters follow.
        self.network.eval()
        return self

    def __deepcopy__(self, memo: dict) -> 'FrozenTeacher':
        return self

    def extra_repr(self) -> str:
        """The network's name and its checkpoint."""
        return f'{type(self.network).__name__}, {self.checkpoint}'


def _normalization(
    preprocessor: nn.Module | None,
) -> tuple[list[float], list[float], bool] | None:
    """Mean, standard deviation (per channel) and whether RGB comes out."""
    if preprocessor is None:
        return None
    rgb = any(
        getattr(preprocessor, name, False)
        for name in ('to_rgb', '_channel_conversion', 'channel_conversion')
    )
    if not getattr(preprocessor, '_enable_normalize', False):
        return [0.0] * 3, [1.0] * 3, rgb
    mean = preprocessor.mean.flatten().tolist()
    return mean, preprocessor.std.flatten().tolist(), rgb
