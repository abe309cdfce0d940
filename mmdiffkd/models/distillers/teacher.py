"""The teacher, frozen and kept out of everything that is trained or saved."""

import copy
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.logging import MMLogger, print_log
from torch import Tensor, nn

from mmdiffkd.utils import (
    class_names,
    load_weights,
    plain_state_dict,
    read_checkpoint,
)

from .folding import fold_batch_norms
from .forward import arguments_of, forward_to_taps
from .image_shape import find_shape
from .inheritance import Match, inherit, match_tensors
from .libraries import check_agreement, preprocessor_for
from .nested import check_apart
from .normalization import (
    EXAMPLE,
    Conversion,
    Normalization,
    describe,
    match_preprocessors,
)
from .probe import tapped_levels
from .recognition import Tapped
from .rois import box_head_of
from .spec import ONLY_TEACHER, TeacherSpec
from .taps import Taps
from .teacher_network import build_from_config as build_from_config
from .teacher_network import build_teacher_network

#: How far folding and layout may move a tapped tensor, relative to its norm.
TOLERANCE = 1e-4
#: The same on the training device, where multiplications may be TF32.
COARSE_TOLERANCE = 0.5
_DTYPES = {
    None: None,
    'bfloat16': torch.bfloat16,
    'float16': torch.float16,
}
_MISSING = object()


class FrozenTeacher(nn.Module):
    """A network that teaches and never changes.

    The network lives outside ``_modules``: it is in no ``parameters()``, no
    state dict, no optimizer, no DDP bucket and no EMA copy. It stays in eval
    mode (dropout and stochastic depth too) and follows device and dtype
    moves. A deep copy shares it, so that a move of the copy moves it too.

    Four switches make its forward pass faster. They take effect when the
    weights are loaded; the first two change neither what is computed (beyond
    rounding, which is checked then) nor what an evaluation of the network
    needs, the last two apply to distillation alone, not to an evaluation.

    Args:
        config (str, Path, dict or Config): The teacher's whole config.
        checkpoint (str, Path or None): Its weights; None for random ones.
        spec (TeacherSpec, optional): All its keys, in place of the others.
        key (str): Where it stands in the distiller's config, for messages.
            Defaults to 'teacher'.
        **keys: The other keys of :class:`~.spec.TeacherSpec`.

    Raises:
        ValueError: If a key is missing, unknown or wrong.
    """

    def __init__(
        self,
        config: str | Path | dict | Config = None,
        checkpoint: str | Path | None = _MISSING,
        *,
        spec: TeacherSpec | None = None,
        key: str = ONLY_TEACHER,
        **keys,
    ) -> None:
        super().__init__()
        if config is not None:
            keys['config'] = config
        if checkpoint is not _MISSING:
            keys['checkpoint'] = checkpoint
        spec = spec or TeacherSpec.read(keys, key)
        self.key = key
        #: What the log calls it.
        self.label = 'teacher'
        if key != ONLY_TEACHER:
            self.label += f' {key.rpartition(".")[2]!r}'
        self.checkpoint = spec.checkpoint
        self.strict = spec.strict
        self.trusted = spec.trusted
        #: The names of its classes, where the checkpoint tells them.
        self.classes: list[str] | None = None
        self.inherit = spec.inherit
        self.fold_batch_norm = spec.fold_batch_norm
        self.channels_last = spec.channels_last
        self.dtype = _DTYPES[spec.dtype]
        self._forward_to_taps = forward_to_taps
        if spec.compile:
            self._forward_to_taps = torch.compile(forward_to_taps)
        self.input_size = spec.input_size
        self._built = build_teacher_network(spec, key)
        network = self._built.network
        network.requires_grad_(False)
        network.eval()
        object.__setattr__(self, 'network', network)
        self._preprocessor_is_given = False
        if spec.data_preprocessor is not None:
            self._take_preprocessor(self._built.preprocessor)
        self.taps: Taps | None = None
        self._heads: dict[str, str] = {}
        self._matches: dict[str, Match] = {}
        self._initial_values: dict[str, dict[str, Tensor]] = {}
        self._input_shape: tuple[int, ...] = ()
        self._folded = False
        #: Whether its weights have been read or drawn.
        self.is_loaded = False
        self._conversion: Conversion | None = None

    @contextmanager
    def named_in_errors(self) -> Iterator[None]:
        """Say which of several teachers an error is about."""
        try:
            yield
        except ValueError as error:
            if self.key == ONLY_TEACHER:
                raise
            # What does not know the key names that of the only teacher.
            text = re.sub('`teacher(?=[.`])', f'`{self.key}', str(error))
            if self.key not in text:
                text = f'`{self.key}`: {text}'
            raise ValueError(text) from error

    @property
    def is_random(self) -> bool:
        """Whether no weights are loaded into it."""
        return self.checkpoint is None and not self._built.maker

    def head(self, path: str) -> tuple[nn.Module, torch.Size]:
        """A module of the network, and the shape of what it returns.

        Args:
            path (str): Its path, one of the taps.
        """
        return self.network.get_submodule(path), self._shapes[path][0]

    def attach(
        self, taps: list[str], input_shape: tuple[int, ...]
    ) -> dict[str, list[Tapped]]:
        """Tap the network and see what the taps yield.

        Args:
            taps (list[str]): The taps.
            input_shape (tuple[int, ...]): The shape of the student's images,
                (C, H, W) or (T, C, H, W).

        Returns:
            dict[str, list[Tapped]]: The tensors of each tap, one a level.

        Raises:
            ValueError: If a tap is at fault, or the network does not run on
                images of this shape.
        """
        if self.input_size is not None:
            in_boxes = [tap for tap in taps if box_head_of(tap)]
            if in_boxes:
                raise ValueError(
                    f'`{self.key}.input_size` is {self.input_size}, but '
                    f'{in_boxes[0]!r} is in a RoI head, which runs on boxes '
                    "in the student's images. Leave it out."
                )
            input_shape = (*input_shape[:-2], *self.input_size)
        self.taps = Taps(self.network, taps, 'teacher')
        self._input_shape, self._shapes, self._heads = find_shape(
            self.network, self.taps, [input_shape], training=False
        )
        if self.taps.stops and self._forward_to_taps is not forward_to_taps:
            raise ValueError(
                f'`{self.key}.compile` is True, but to reach {taps} '
                f'{type(self.network).__name__} is stopped at the last of '
                'them, which cannot be compiled. Leave it out.'
            )
        return tapped_levels(
            self.network,
            self.taps,
            self._shapes,
            self._input_shape,
            training=False,
            image=self.input_size,
        )

    def match_student(self, student: nn.Module) -> None:
        """See what the student can inherit.

        Args:
            student (nn.Module): The student.

        Raises:
            ValueError: If ``inherit`` names what one of the two lacks, or
                nothing that fits.
        """
        self._matches = match_tensors(
            self.inherit, student, self.network, self.key
        )

    def initialize_student(self, student: nn.Module) -> None:
        """Give the student the loaded values below the paths of ``inherit``.

        What a run loads (``load_from``) or resumes comes after this and
        takes its place.

        Args:
            student (nn.Module): The student.
        """
        inherit(student, self._matches, self._initial_values, self.label)

    def init_weights(self) -> None:
        """Load or initialise the weights, then apply the switches for speed.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the checkpoint does not fit the config, or a
                switch for speed does not fit the network.
        """
        if self._folded:
            # It has lost what a checkpoint would be loaded into.
            return
        self._load_weights()
        # Before folding, which leaves the tensors of these names behind.
        self._initial_values = {
            path: self.network.get_submodule(path).state_dict()
            for path in self._matches
        }
        # Some networks work out tables from their weights here.
        self.network.eval()
        if self.taps is not None and self.taps.taps:
            self._speed_up()
        self.is_loaded = True

    def _load_weights(self) -> None:
        if self.checkpoint is None and self._built.maker:
            print_log(
                f"The {self.label}'s weights are {self._built.maker}.",
                'current',
            )
            return
        if self.checkpoint is None:
            # A random teacher loads pretrained weights in none of its parts.
            for module in self.network.modules():
                if 'Pretrained' in str(getattr(module, 'init_cfg', None)):
                    module.init_cfg = None
            if hasattr(self.network, 'init_weights'):
                with _no_list_of_parameters():
                    self.network.init_weights()
            print_log(
                f'The {self.label} is random ({self.key}.checkpoint=None).',
                'current',
            )
            return
        checkpoint = read_checkpoint(self.checkpoint, trusted=self.trusted)
        weights = plain_state_dict(checkpoint)
        if self._preprocessor_is_given:
            # What it may hold belongs to no checkpoint of the teacher.
            prefix = 'data_preprocessor.'
            weights = {
                k: v for k, v in weights.items() if not k.startswith(prefix)
            }
            if hasattr(self.network, 'data_preprocessor'):
                own = self.network.data_preprocessor
                weights |= own.state_dict(prefix=prefix)
        load_weights(
            self.network,
            weights,
            str(self.checkpoint),
            self.strict,
        )
        print_log(
            f'{self.label.capitalize()} weights: {self.checkpoint}',
            'current',
        )
        self.classes = class_names(checkpoint.get('meta'))

    @torch.no_grad()
    def _speed_up(self) -> None:
        """Apply the switches, and see that the taps yield what they did."""
        if not (self.fold_batch_norm or self.channels_last or self.dtype):
            return
        device = next(self.network.parameters()).device
        # A GPU's coarser TF32 would hide an error, or look like one.
        self.to('cpu')
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(2, *self._input_shape, generator=generator)
        images = images.to(next(self.network.parameters()))
        expected = self._read(images, self.taps.taps)
        if self.fold_batch_norm:
            count = fold_batch_norms(
                self.network, lambda: self._read(images, self.taps.taps)
            )
            self._folded = count > 0
            print_log(
                f'{self.label.capitalize()}: {count} batch norms folded',
                'current',
            )
            self._check('fold_batch_norm', images, expected, TOLERANCE)
        if self.channels_last:
            for module in self.network.modules():
                if isinstance(module, nn.Conv2d):
                    module.to(memory_format=torch.channels_last)
            images = _channels_last(images)
            self._check('channels_last', images, expected, TOLERANCE)
        self.to(device)
        images = images.to(device)
        if self.dtype is not None:
            with self._precision(device):
                moved = self._check(
                    'dtype', images, expected, COARSE_TOLERANCE
                )
            print_log(
                f'{self.label.capitalize()} in {self.dtype}: what its taps '
                f'yield for random images differs by {moved:.1%} of its norm '
                'at most',
                'current',
            )
        elif device.type != 'cpu':
            self._check('channels_last', images, expected, COARSE_TOLERANCE)

    def _check(
        self,
        switch: str,
        images: Tensor,
        expected: dict[str, list[Tensor]],
        limit: float,
    ) -> float:
        """How far a switch moves what the taps yield, relative to its norm."""
        try:
            found = self._read(images, self.taps.taps)
        except RuntimeError as error:
            raise ValueError(
                f'`{self.key}.{switch}` is set, with which '
                f'{type(self.network).__name__} cannot run on '
                f'{images.device.type}: {error}. Leave it out.'
            ) from error
        parts = [
            torch.dist(a.to(b), b) / b.norm().clamp_min(1e-30)
            for tap, levels in expected.items()
            for a, b in zip(found[tap], levels)
        ]
        moved = torch.stack(parts).max().item()
        # Written so that NaN is refused.
        if not moved <= limit:
            raise ValueError(
                f'`{self.key}.{switch}` moves what the teacher yields by '
                f'{moved:.1e} of its norm; more than {limit:g} is no '
                'rounding. Leave it out.'
            )
        return moved

    def match_input(self, student_preprocessor: nn.Module | None) -> None:
        """Prepare for input normalised by the student's preprocessor.

        A teacher whose config has no ``data_preprocessor``, and of which no
        library says what it takes, takes a copy of the student's. Where the
        teacher's own differs in mean, standard deviation or channel order,
        its input is converted. The log says what normalises the images of
        both.

        Args:
            student_preprocessor (nn.Module, optional): What normalises the
                images of a training step.

        Raises:
            ValueError: If the two cannot be converted into each other.
        """
        own = self._built.preprocessor
        said, silent = self._built.statistics, self._built.says_nothing
        if said is not None and self._preprocessor_is_given:
            check_agreement(said, own, student_preprocessor, self.key)
        elif said is not None and silent:
            own = preprocessor_for(said, student_preprocessor, self.key)
            if own is None:
                return
            self._take_preprocessor(own)
            silent = ''
        found = Normalization.of(own)
        if silent and found and found.raw and student_preprocessor is not None:
            own = student_preprocessor
            self._take_preprocessor(copy.deepcopy(own))
            print_log(
                f"{silent} The {self.label} takes the student's: "
                f'{describe(own)}. If it was trained with another, set '
                f'`{self.key}.data_preprocessor`, for instance {EXAMPLE}.',
                'current',
                logging.WARNING,
            )
        self._conversion = match_preprocessors(
            student_preprocessor, own, self.label
        )

    def _take_preprocessor(self, preprocessor: nn.Module) -> None:
        self._preprocessor_is_given = True
        # Another's built module stays as it is, for its next distiller.
        if hasattr(self.network, 'data_preprocessor'):
            preprocessor.requires_grad_(False)
            self.network.data_preprocessor = preprocessor.eval()

    @torch.no_grad()
    def forward(
        self,
        inputs: Tensor,
        taps: list[str],
        boxes: Mapping[str, Tensor] | None = None,
        data_samples: list | None = None,
    ) -> dict[str, list[Tensor]]:
        """Run backbone and neck, and the heads that hold one of the taps.

        Where taps need the whole network, it runs as far as the last of
        them.

        Args:
            inputs (Tensor): The student's normalised images (B, 3, H, W).
            taps (list[str]): The taps to read.
            boxes (Mapping[str, Tensor], optional): For taps in a RoI head:
                the boxes (n, 5) on which to run the box head of each path,
                the image's index and x1 y1 x2 y2. Defaults to None: a box
                an image, as large as the image.
            data_samples (list, optional): The samples of the images, whose
                sizes some heads ask for. Defaults to None.

        Returns:
            dict[str, list[Tensor]]: Each tap's tensors, one a level.
        """
        if next(self.network.parameters()).device != inputs.device:
            self.to(inputs.device)
        if self.network.training:
            # Somebody else holds the module, and has called its train().
            self.network.eval()
        if self._conversion is not None:
            inputs = self._conversion(inputs)
        if self.input_size not in (None, tuple(inputs.shape[-2:])):
            inputs = _resized(inputs, self.input_size)
            # Their sizes are those of the student's images.
            data_samples = None
        if self.channels_last:
            inputs = _channels_last(inputs)
        # Nothing stops in a compiled graph.
        read = self._read_uncompiled if self.taps.stops else self._read
        with self._precision(inputs.device):
            tensors = read(
                inputs, taps, boxes, data_samples, self._forward_to_taps
            )
        if self.dtype is not None:
            for tap, levels in tensors.items():
                tensors[tap] = [level.to(inputs.dtype) for level in levels]
        return tensors

    def _run(
        self,
        inputs: Tensor,
        taps: Iterable[str],
        boxes: Mapping[str, Tensor] | None = None,
        data_samples: list | None = None,
        forward: Callable = forward_to_taps,
    ) -> None:
        heads = [self._heads[tap] for tap in taps if tap in self._heads]
        given = arguments_of(self.network, heads, inputs, boxes, data_samples)
        forward(self.network, inputs, given)

    def _read(
        self, inputs: Tensor, taps: Iterable[str], *how
    ) -> dict[str, list[Tensor]]:
        with self.taps.record(taps, stop=self.taps.stops):
            self._run(inputs, taps, *how)
        tensors = {tap: self.taps.read(tap) for tap in taps}
        self.taps.clear()
        return tensors

    @torch.compiler.disable
    def _read_uncompiled(self, *how) -> dict[str, list[Tensor]]:
        return self._read(*how)

    def _precision(self, device: torch.device) -> AbstractContextManager:
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(device.type, self.dtype)

    def train(self, mode: bool = True) -> 'FrozenTeacher':
        """Stay in eval mode."""
        return super().train(False)

    def _apply(self, fn, recurse: bool = True) -> 'FrozenTeacher':
        super()._apply(fn)
        self.network._apply(fn)
        device = next(self.network.parameters()).device
        if hasattr(self.network, '_set_device'):
            self.network._set_device(device)
        if self._conversion is not None:
            scale, shift, *rest = self._conversion
            self._conversion = Conversion(fn(scale), fn(shift), *rest)
        # Tables that some networks keep beside their parameters follow.
        self.network.eval()
        return self

    def __deepcopy__(self, memo: dict) -> 'FrozenTeacher':
        return self

    def extra_repr(self) -> str:
        """The network's name and its checkpoint."""
        return f'{type(self.network).__name__}, {self.checkpoint}'


@contextmanager
def _no_list_of_parameters() -> Iterator[None]:
    """Keep off the console how each parameter was initialised.

    MMEngine writes it there if the logger has no file.
    """
    logger = MMLogger.get_current_instance()

    def is_other(record: logging.LogRecord) -> bool:
        return record.funcName != '_dump_init_info'

    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def _channels_last(images: Tensor) -> Tensor:
    """Images (B, C, H, W) in that layout; clips stay as they are."""
    if images.dim() != 4:
        return images
    return images.contiguous(memory_format=torch.channels_last)


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (B, C, H, W), or the frames of clips, in another size."""
    resized = F.interpolate(
        images.flatten(0, -4), size, mode='bilinear', antialias=True
    )
    return resized.unflatten(0, images.shape[:-3])


def build_teachers(
    given: Mapping[str, Mapping | nn.Module], student: nn.Module
) -> dict[str, FrozenTeacher]:
    """Build all teachers of a distiller.

    Args:
        given (Mapping): By name, the keys of each or a built network.
        student (nn.Module): The student.

    Raises:
        ValueError: If a key is missing, unknown or wrong, or a built network
            has parameters of the student.
    """
    built = {}
    for name, teacher in given.items():
        key = ONLY_TEACHER
        if list(given) != [ONLY_TEACHER]:
            key = f'teachers.{name}'
        if isinstance(teacher, nn.Module):
            teacher = dict(module=teacher)
        spec = TeacherSpec.read(teacher, key)
        if isinstance(spec.module, nn.Module):
            check_apart(student, spec.module, key)
        built[name] = FrozenTeacher(spec=spec, key=key)
    return built
