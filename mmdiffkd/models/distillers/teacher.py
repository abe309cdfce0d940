"""The teacher, frozen and kept out of everything that is trained or saved."""

import copy
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor, nn

from .acceleration import accelerate, autocast, channels_last
from .forward import forward_to_taps
from .inheritance import Match, inherit, match_tensors
from .libraries import check_agreement, preprocessor_for
from .normalization import (
    EXAMPLE,
    Conversion,
    Normalization,
    describe,
    match_preprocessors,
)
from .recognition import Tapped
from .rois import box_head_of
from .spec import ONLY_TEACHER, TeacherSpec, teacher_label
from .tapped_network import TappedNetwork
from .taps import Taps
from .teacher_network import build_from_config as build_from_config
from .teacher_network import build_teacher_network
from .teacher_weights import draw_weights, read_weights

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
    needs, and where they are None, the check decides; the last two apply to
    distillation alone, not to an evaluation.

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
        self.label = teacher_label(key.rpartition('.')[2])
        self.spec = spec
        self.checkpoint = spec.checkpoint
        self.input_size = spec.input_size
        self.channels_last = False
        self.dtype = spec.autocast_dtype
        #: The names of its classes, where the checkpoint tells them.
        self.classes: list[str] | None = None
        self._forward_to_taps = forward_to_taps
        if spec.compile:
            self._forward_to_taps = torch.compile(forward_to_taps)
        self._built = build_teacher_network(spec, key)
        network = self._built.network
        network.requires_grad_(False)
        network.eval()
        object.__setattr__(self, 'network', network)
        self._preprocessor_is_given = False
        if spec.data_preprocessor is not None:
            self._take_preprocessor(self._built.preprocessor)
        self._tapped: TappedNetwork | None = None
        self._matches: dict[str, Match] = {}
        self._initial_values: dict[str, dict[str, Tensor]] = {}
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

    @property
    def taps(self) -> Taps | None:
        """The taps of the network, once it is attached."""
        return self._tapped and self._tapped.taps

    def head(self, path: str) -> tuple[nn.Module, torch.Size]:
        """A module of the network, and the shape of what it returns.

        Args:
            path (str): Its path, one of the taps.
        """
        return self.network.get_submodule(path), self._tapped.shapes[path][0]

    def attach(self, taps: list[str], input_shape: tuple[int, ...]) -> None:
        """Tap the network and see what the taps yield.

        Args:
            taps (list[str]): The taps.
            input_shape (tuple[int, ...]): The shape of the student's images,
                (C, H, W) or (T, C, H, W).

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
        self._tapped = TappedNetwork(
            self.network, taps, 'teacher', [input_shape]
        )
        if self.taps.stops and self._forward_to_taps is not forward_to_taps:
            raise ValueError(
                f'`{self.key}.compile` is True, but to reach {taps} '
                f'{type(self.network).__name__} is stopped at the last of '
                'them, which cannot be compiled. Leave it out.'
            )

    def levels(self) -> dict[str, list[Tapped]]:
        """What is known of every tensor that its taps yield."""
        return self._tapped.levels(self.input_size)

    def match_student(self, student: nn.Module) -> None:
        """See what the student can inherit.

        Args:
            student (nn.Module): The student.

        Raises:
            ValueError: If ``inherit`` names what one of the two lacks, or
                nothing that fits.
        """
        self._matches = match_tensors(
            self.spec.inherit, student, self.network, self.key
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

        It does so once.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the checkpoint does not fit the config, or a
                switch for speed does not fit the network.
        """
        if self.is_loaded:
            # Folding loses what a checkpoint would be loaded into.
            return
        if self.checkpoint is not None:
            self.classes = read_weights(
                self.network,
                self.checkpoint,
                self.spec.strict,
                self.spec.trusted,
                self._preprocessor_is_given,
            )
            print_log(
                f'{self.label.capitalize()} weights: {self.checkpoint}',
                'current',
            )
        elif self._built.maker:
            print_log(
                f"The {self.label}'s weights are {self._built.maker}.",
                'current',
            )
        else:
            draw_weights(self.network)
            print_log(
                f'The {self.label} is random ({self.key}.checkpoint=None).',
                'current',
            )
        # Before folding, which leaves the tensors of these names behind.
        self._initial_values = {
            path: self.network.get_submodule(path).state_dict()
            for path in self._matches
        }
        # Some networks work out tables from their weights here.
        self.network.eval()
        if self.taps is not None and self.taps.taps:
            self.channels_last = accelerate(
                self._tapped, self.spec, self.key, self.label, self.is_random
            )
        self.is_loaded = True

    def check_loaded(self) -> None:
        """See that the weights have been read.

        Raises:
            ValueError: If there is a checkpoint, and nothing has read it.
        """
        if self.checkpoint is not None and not self.is_loaded:
            raise ValueError(
                f'`{self.key}.checkpoint` is {self.checkpoint!r}, but nothing '
                'has read it. Call init_weights() of the distiller once '
                "before training, as MMEngine's runner does."
            )

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
            inputs = channels_last(inputs)
        with autocast(self.dtype, inputs.device):
            tensors = self._tapped.read(
                inputs, taps, boxes, data_samples, self._forward_to_taps
            )
        if self.dtype is not None:
            for tap, levels in tensors.items():
                tensors[tap] = [level.to(inputs.dtype) for level in levels]
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


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (B, C, H, W), or the frames of clips, in another size."""
    resized = F.interpolate(
        images.flatten(0, -4), size, mode='bilinear', antialias=True
    )
    return resized.unflatten(0, images.shape[:-3])
