"""One entry of ``distill``: what is compared, how, and with which weight."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.func import functional_call

from mmdiffkd.models.necks import Aligned
from mmdiffkd.registry import MODELS
from mmdiffkd.utils.naming import did_you_mean
from mmdiffkd.utils.randomness import derive_seed

MAX_RESIZE = 8
_NAME = re.compile('[a-z][a-z0-9_]*')
_KEYS = (
    'at',
    'student_at',
    'teacher_at',
    'neck',
    'loss',
    'weight',
    'schedule',
    'shared',
)
_SCHEDULE_KEYS = ('warmup', 'stop', 'by_epoch')


class Schedule:
    """How the weight of an entry changes over a run.

    Args:
        warmup (int): Over how many epochs (or iterations) the weight grows
            linearly; the n-th, counted from 1, has the factor
            ``min(n / warmup, 1)``. Defaults to 0, none.
        stop (int, optional): After how many epochs (or iterations)
            distillation ends. Defaults to None, never.
        by_epoch (bool): Count epochs rather than iterations. Defaults to
            True.
    """

    def __init__(
        self,
        warmup: int = 0,
        stop: int | None = None,
        by_epoch: bool = True,
    ) -> None:
        for key, value in (('warmup', warmup), ('stop', stop)):
            if value is not None and (not isinstance(value, int) or value < 0):
                raise ValueError(
                    f'`schedule.{key}` is {value!r}. Use a number of '
                    f'{"epochs" if by_epoch else "iterations"}, 0 or more.'
                )
        self.warmup = warmup
        self.stop = stop
        self.by_epoch = by_epoch

    @property
    def constant(self) -> bool:
        """Whether the factor is 1 all the time."""
        return self.warmup <= 1 and self.stop is None

    def factor(self, epoch: int, iteration: int) -> float:
        """The factor at an epoch and iteration, both counted from 0."""
        done = epoch if self.by_epoch else iteration
        if self.stop is not None and done >= self.stop:
            return 0.0
        return min((done + 1) / self.warmup, 1.0) if self.warmup else 1.0


def _find(kind: str, key: str) -> type:
    """A neck's or a loss's class by its name."""
    try:
        cls = MODELS.get(kind)
    except Exception:
        cls = None
    if cls is None:
        raise ValueError(
            f'`{key}.type` is {kind!r}, which is not registered. Write the '
            'name of one of ours, or package.Name.'
        )
    return cls


@lru_cache
def _arguments(cls: type) -> tuple[str, ...]:
    return tuple(inspect.signature(cls.forward).parameters)


def _supplied(module: nn.Module, supply: Mapping) -> dict:
    """The arguments of a neck or loss that the distiller supplies by name."""
    names = _arguments(type(module))
    return {name: supply[name]() for name in names if name in supply}


def check_entry(name: str, entry: Mapping) -> tuple[str, str]:
    """Check the name and the keys of an entry of ``distill``.

    Args:
        name (str): Its name.
        entry (Mapping): Its configuration.

    Returns:
        tuple[str, str]: The student's and the teacher's tap.

    Raises:
        ValueError: If the name misleads or is reserved, or a key is unknown
            or missing.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f'`distill` has an entry named {name!r}. Use lower-case letters, '
            'digits and underscores, beginning with a letter.'
        )
    if 'loss' in name:
        raise ValueError(
            f'`distill` has an entry named {name!r}; MMEngine adds up every '
            'logged value whose name contains "loss". Choose another name, '
            "for instance what is compared: 'feature', 'logits'."
        )
    if name == 'step' or hasattr(nn.ModuleDict(), name):
        raise ValueError(
            f'`distill` has an entry named {name!r}, which is reserved. '
            "Choose another name, for instance 'feature' or 'logits'."
        )
    if not isinstance(entry, Mapping):
        raise ValueError(
            f'`distill.{name}` is {entry!r}. Write dict(at=..., loss=...).'
        )
    for key in entry:
        if key not in _KEYS:
            raise ValueError(
                f'`distill.{name}` has an unknown key {key!r}. '
                + did_you_mean(key, _KEYS)
            )
    if 'at' in entry and ('student_at' in entry or 'teacher_at' in entry):
        raise ValueError(
            f'`distill.{name}` has `at` and also `student_at` or '
            '`teacher_at`. Give `at` for both, or one of each.'
        )
    student_at = entry.get('student_at', entry.get('at'))
    teacher_at = entry.get('teacher_at', entry.get('at'))
    for role, tap in (('student', student_at), ('teacher', teacher_at)):
        if tap is None:
            raise ValueError(
                f'`distill.{name}` does not say what to read of the {role}. '
                f'Add `at` (for both) or `{role}_at`, for instance '
                "'backbone[-1]'."
            )
    if entry.get('loss') is None:
        raise ValueError(
            f'`distill.{name}` has no `loss`. Add for instance '
            "loss=dict(type='MSELoss')."
        )
    return student_at, teacher_at


@lru_cache
def _grid_of_tokens(
    count: int, height: int, width: int
) -> tuple[int, int, int] | None:
    """Rows, columns and leading class tokens of ``count`` tokens.

    The grid is the image's at some stride. One that divides the image is
    preferred; otherwise the last patch is padded or left out.
    """
    strides = range(1, min(height, width) + 1)
    exact = [p for p in strides if height % p == 0 and width % p == 0]
    grids = [(height // p, width // p) for p in exact]
    for p in strides:
        grids.append((-(-height // p), -(-width // p)))
        grids.append((height // p, width // p))
    for candidates in (grids[: len(exact)], grids):
        for extra in range(3):
            for rows, columns in candidates:
                if rows * columns == count - extra:
                    return rows, columns, extra
    return None


def tokens_to_map(tokens: Tensor, image: Sequence[int]) -> Tensor:
    """Lay tokens (B, N, C) out as a map (B, C, H, W).

    Args:
        tokens (Tensor): The tokens, row by row; up to two leading class
            tokens are dropped.
        image (Sequence[int]): Height and width of the input, which give the
            map's proportions.

    Raises:
        ValueError: If no such map has N elements.
    """
    grid = _grid_of_tokens(tokens.shape[1], *image)
    if grid is None:
        raise ValueError(
            f'{tokens.shape[1]} tokens make no map of the proportions of a '
            f'{image[0]} x {image[1]} image. Tap a module that returns a '
            'map, or tokens of one regular grid.'
        )
    rows, columns, extra = grid
    return tokens[:, extra:].transpose(1, 2).unflatten(2, (rows, columns))


class Distillation(BaseModule):
    """Taps, a neck, a loss and a weight.

    Args:
        name (str): The entry's name.
        student_at (str): The student's tap.
        teacher_at (str): The teacher's tap.
        student_shapes (list[torch.Size]): Shapes of the student's tensors,
            one a level, with a batch of 2.
        teacher_shapes (list[torch.Size]): The teacher's.
        input_size (tuple[int, int]): Height and width of the images that
            these shapes belong to.
        loss (dict): Configuration of the distance, with its own
            ``loss_weight``.
        neck (dict, optional): Configuration of the distillation neck;
            channels left out are read off the shapes. Defaults to None: the
            tensors are compared as they are.
        weight (float): Multiplies everything of the entry; 0 switches it
            off. Defaults to 1.0.
        schedule (dict, optional): See :class:`Schedule`. Defaults to None.
        shared (bool): One neck and loss for all levels, rather than one a
            level. Defaults to False.

    Raises:
        ValueError: If the tensors cannot be compared.
    """

    def __init__(
        self,
        name: str,
        student_at: str,
        teacher_at: str,
        student_shapes: list[torch.Size],
        teacher_shapes: list[torch.Size],
        input_size: tuple[int, int],
        loss: dict,
        neck: dict | None = None,
        weight: float = 1.0,
        schedule: dict | None = None,
        shared: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(weight, (int, float)) or not weight >= 0:
            raise ValueError(
                f'`distill.{name}.weight` is {weight!r}. Use a number, 0 '
                '(off) or more.'
            )
        if not isinstance(schedule or {}, Mapping):
            raise ValueError(
                f'`distill.{name}.schedule` is {schedule!r}. Write for '
                'instance dict(warmup=5, stop=80).'
            )
        for key in schedule or ():
            if key not in _SCHEDULE_KEYS:
                raise ValueError(
                    f'`distill.{name}.schedule` has an unknown key {key!r}. '
                    + did_you_mean(key, _SCHEDULE_KEYS)
                )
        self.name = name
        self.student_at = student_at
        self.teacher_at = teacher_at
        self.weight = float(weight)
        self.schedule = Schedule(**(schedule or {}))
        self.factor = self.schedule.factor(0, 0)
        if len(student_shapes) != len(teacher_shapes):
            raise ValueError(
                f'`distill.{name}`: {student_at!r} gives '
                f'{len(student_shapes)} tensors in the student, '
                f'{teacher_at!r} gives {len(teacher_shapes)} in the teacher. '
                'Pick equal numbers with slices, for instance '
                "student_at='neck[0:4]', teacher_at='neck[0:4]'."
            )
        self.shapes = [
            self._compared_shapes(s, t, input_size)
            for s, t in zip(student_shapes, teacher_shapes)
        ]
        channels = [(s[1], t[1]) for s, t in self.shapes]
        if shared and len(set(channels)) > 1:
            raise ValueError(
                f'`distill.{name}.shared` is True, but the levels differ in '
                f'channels (student, teacher): {channels}. Leave it out.'
            )
        levels = channels[:1] if shared else channels
        self.necks = nn.ModuleList(
            self._build('neck', neck, *c) for c in levels if neck is not None
        )
        self.losses = nn.ModuleList(
            self._build('loss', loss, *c) for c in levels
        )
        self._check_channels(channels)

    def _compared_shapes(
        self, student: torch.Size, teacher: torch.Size, image: Sequence[int]
    ) -> tuple[torch.Size, torch.Size]:
        """What two tensors look like when the neck gets them."""
        try:
            shapes = [
                tokens_to_map(torch.empty(s, device='meta'), image).shape
                if len(s) == 3
                else s
                for s in (student, teacher)
            ]
        except ValueError as error:
            raise ValueError(f'`distill.{self.name}`: {error}') from error
        s, t = shapes
        if len(s) != len(t) or len(s) not in (2, 4):
            kind = {2: 'a vector', 3: 'tokens', 4: 'a map'}
            raise ValueError(
                f'`distill.{self.name}` compares {self.student_at!r}, '
                f'{kind.get(len(student), "a tensor")} of shape '
                f'{tuple(student)}, with {self.teacher_at!r}, '
                f'{kind.get(len(teacher), "a tensor")} of shape '
                f'{tuple(teacher)}. Compare vectors (B, C) with vectors, and '
                'maps (B, C, H, W) or tokens (B, N, C) with maps or tokens.'
            )
        for side, a, b in zip(('height', 'width'), s[2:], t[2:]):
            if max(a, b) > MAX_RESIZE * min(a, b):
                raise ValueError(
                    f'`distill.{self.name}`: the {side} of the maps differs '
                    f'by more than a factor of {MAX_RESIZE} (student {a}, '
                    f'teacher {b}). Tap stages of nearer strides.'
                )
        return s, torch.Size(t)

    def _build(
        self, part: str, config: dict, student: int, teacher: int
    ) -> nn.Module:
        """A neck or loss, in our scope, with its channels filled in."""
        key = f'distill.{self.name}.{part}'
        if not isinstance(config, Mapping) or 'type' not in config:
            raise ValueError(
                f'`{key}` is {config!r}. Write dict(type=...), for instance '
                + (
                    "dict(type='DiffKDNeck')."
                    if part == 'neck'
                    else "dict(type='MSELoss')."
                )
            )
        config = {'_scope_': 'mmdiffkd', **config}
        kind = config['type']
        if isinstance(kind, str) and '.' not in kind:
            MODELS.import_from_location()
            if kind not in MODELS.module_dict:
                raise ValueError(
                    f'`{key}.type` is {kind!r}, which mmdiffkd does not '
                    'have. ' + did_you_mean(kind, MODELS.module_dict)
                )
        cls = _find(kind, key) if isinstance(kind, str) else kind
        accepted = inspect.signature(cls).parameters
        for name, value in (
            ('student_channels', student),
            ('teacher_channels', teacher),
        ):
            if name in accepted and config.get(name) is None:
                config[name] = value
        open_ended = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
        for name in config:
            if name not in ('type', '_scope_', *accepted) and not open_ended:
                raise ValueError(
                    f'`{key}` has an unknown key {name!r}. '
                    + did_you_mean(name, accepted)
                )
        try:
            return MODELS.build(config)
        except (TypeError, ValueError) as error:
            raise ValueError(f'`{key}`: {error}') from error

    def _check_channels(self, channels: list[tuple[int, int]]) -> None:
        for student, teacher in channels:
            if student == teacher:
                continue
            if any(getattr(m, 'over_classes', False) for m in self.losses):
                raise ValueError(
                    f'`distill.{self.name}`: '
                    f'{type(self.losses[0]).__name__} compares '
                    f'distributions over classes, but {self.student_at!r} '
                    f'has {student} and {self.teacher_at!r} has {teacher}. '
                    'Train both networks on the same classes, or compare '
                    'features with another loss.'
                )
            if not self.necks:
                raise ValueError(
                    f'`distill.{self.name}` has no neck, and '
                    f'{self.student_at!r} has {student} channels where '
                    f'{self.teacher_at!r} has {teacher}. Add for instance '
                    "neck=dict(type='DiffKDNeck') or "
                    "neck=dict(type='ProjectionNeck')."
                )
        self.check_batch(2)

    def check_batch(self, batch_size: int) -> None:
        """See that the necks take a batch of this size, without arithmetic.

        Args:
            batch_size (int): The number of images.

        Raises:
            ValueError: If a neck does not take the entry's tensors.
        """
        for level, (student, teacher) in enumerate(self.shapes):
            if not self.necks:
                return
            neck = self.necks[level % len(self.necks)]
            if any(isinstance(m, nn.SyncBatchNorm) for m in neck.modules()):
                # The batch counts over all processes, and wants a GPU.
                continue
            state = dict(neck.named_parameters()) | dict(neck.named_buffers())
            meta = {
                name: torch.empty_like(tensor, device='meta')
                for name, tensor in state.items()
            }
            # The student's map has been resized by the time a neck sees it.
            shapes = student[1:2] + teacher[2:], teacher[1:]
            inputs = [
                torch.empty(batch_size, *shape, device='meta')
                for shape in shapes
            ]
            try:
                with torch.no_grad():
                    functional_call(
                        neck, meta, tuple(inputs), tie_weights=False
                    )
            except ValueError as error:
                raise ValueError(
                    f'`distill.{self.name}.neck`: {error}'
                ) from error
            except Exception as error:
                # A neck that asks for more, or cannot run without values,
                # is not judged here.
                print_log(
                    f'distill.{self.name}.neck was not tried before '
                    f'training: {error}',
                    'current',
                )

    @property
    def active(self) -> bool:
        """Whether the entry has a weight other than 0 now."""
        return self.weight * self.factor != 0

    def set_progress(self, epoch: int, iteration: int) -> None:
        """Bring the scheduled weight up to date, both counted from 0."""
        self.factor = self.schedule.factor(epoch, iteration)

    @staticmethod
    def align(
        student: Tensor, teacher: Tensor, image: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Tokens become maps; the student's map gets the teacher's size."""
        if student.ndim == 3:
            student = tokens_to_map(student, image)
        if teacher.ndim == 3:
            teacher = tokens_to_map(teacher, image)
        if student.shape[2:] != teacher.shape[2:]:
            student = F.interpolate(
                student, teacher.shape[2:], mode='bilinear'
            )
        return student, teacher.detach()

    def forward(
        self,
        students: list[Tensor],
        teachers: list[Tensor],
        image: Sequence[int],
        supply: Mapping[str, Callable[[], object]],
        seed: tuple,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compare what was tapped.

        Args:
            students (list[Tensor]): The student's tensors, one a level.
            teachers (list[Tensor]): The teacher's.
            image (Sequence[int]): Height and width of the input.
            supply (Mapping): What a neck or a loss can ask for by an
                argument's name, as functions without arguments.
            seed (tuple): What the random stream of this step depends on,
                besides the entry and the level.

        Returns:
            tuple[dict, dict]: Weighted losses, summed over levels; metrics,
            averaged over levels.
        """
        losses: dict[str, Tensor] = {}
        metrics: dict[str, Tensor] = {}
        scale = self.weight * self.factor
        for level, tensors in enumerate(zip(students, teachers)):
            student, teacher = self.align(*tensors, image)
            aligned = Aligned(student, teacher, {}, {})
            if self.necks:
                neck = self.necks[level % len(self.necks)]
                aligned = neck(
                    student,
                    teacher,
                    **_supplied(neck, supply),
                    **self._draw(neck, student, teacher, (*seed, level)),
                )
            loss = self.losses[level % len(self.losses)]
            distance = loss(
                aligned.student, aligned.teacher, **_supplied(loss, supply)
            )
            for key, value in (
                ('loss_kd', distance),
                *aligned.losses.items(),
            ):
                losses[key] = losses.get(key, 0) + value * scale
            for key, value in aligned.metrics.items():
                share = value.detach() / len(students)
                metrics[key] = metrics.get(key, 0) + share
        return losses, metrics

    @torch.compiler.disable
    def _draw(
        self, neck: nn.Module, student: Tensor, teacher: Tensor, seed: tuple
    ) -> dict[str, Tensor]:
        """A neck's noise and timesteps, from a stream of this step's own."""
        if not hasattr(neck, 'draw'):
            return {}
        generator = torch.Generator(student.device)
        generator.manual_seed(derive_seed(self.name, *seed))
        return neck.draw(student, teacher, generator)

    def trajectories(
        self,
        students: list[Tensor],
        teachers: list[Tensor],
        image: Sequence[int],
        seed: tuple,
    ) -> list[list[tuple[str, Tensor]]]:
        """Each level's way from the student's latent to the teacher's.

        Args:
            students (list[Tensor]): The student's tensors, one a level.
            teachers (list[Tensor]): The teacher's.
            image (Sequence[int]): Height and width of the input.
            seed (tuple): What the noise depends on, besides the entry.

        Returns:
            list[list[tuple[str, Tensor]]]: (caption, map) pairs a level.
        """
        shown = []
        for level, tensors in enumerate(zip(students, teachers)):
            student, teacher = self.align(*tensors, image)
            neck = self.necks[level % len(self.necks)]
            drawn = self._draw(neck, student, teacher, (*seed, level))
            shown.append(neck.trajectory(student, teacher, drawn['noise']))
        return shown

    def idle(self) -> dict[str, Tensor]:
        """A loss of 0 that touches every parameter, as DDP wants.

        Nothing is computed from the parameters' values, so that the result
        is 0 whatever they are.
        """
        touched = [p.flatten()[:0].sum() for p in self.parameters()]
        return {'loss_kd': sum(touched)} if touched else {}

    def describe(self) -> list[str]:
        """What is compared, one line a level."""
        lines = []
        for level, (student, teacher) in enumerate(self.shapes):
            parts = [f'loss {type(self.losses[0]).__name__}']
            if self.necks:
                neck = self.necks[level % len(self.necks)]
                count = sum(p.numel() for p in neck.parameters())
                parts.insert(0, f'{type(neck).__name__}, {count:,} parameters')
            if student[2:] != teacher[2:]:
                parts.append("student's map resized")
            lines.append(
                f'distill.{self.name}: student {self.student_at} '
                f'{tuple(student[1:])} -> teacher {self.teacher_at} '
                f'{tuple(teacher[1:])}; ' + '; '.join(parts)
            )
        return lines
