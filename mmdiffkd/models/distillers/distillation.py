"""One entry of ``distill``: what is compared, how, and with which weight."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn
from torch.func import functional_call

from mmdiffkd.models.necks import Aligned
from mmdiffkd.registry import MODELS
from mmdiffkd.utils.arguments import check_arguments
from mmdiffkd.utils.naming import did_you_mean
from mmdiffkd.utils.randomness import derive_seed

from .rois import box_heads_of

MAX_RESIZE = 8
#: What a neck or a loss can ask for by the name of a forward's argument.
SUPPLIED = (
    'gt_labels',
    'sample_idx',
    'gt_bboxes',
    'img_shape',
    'batch_input_shape',
    'roi_labels',
    'teacher_head',
    'teacher_logits',
)
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
    'teacher_head',
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
            if value is None and key == 'stop':
                continue
            if not isinstance(value, int) or value < 0:
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


def _wanted(module: nn.Module) -> tuple[str, ...]:
    """Which of :data:`SUPPLIED` a neck or a loss asks for.

    All that its forward has as an argument, unless it narrows the choice by
    an attribute ``supplied``.
    """
    names = getattr(module, 'supplied', SUPPLIED)
    arguments = _arguments(type(module))
    return tuple(name for name in names if name in arguments)


def _supplied(module: nn.Module, supply: Mapping) -> dict:
    """What a neck or a loss asks for, by name."""
    return {name: supply[name]() for name in _wanted(module)}


def _taps(name: str, role: str, at: object) -> tuple[str, ...]:
    """One tap or a list of them, as a tuple."""
    if isinstance(at, str):
        return (at,)
    if not isinstance(at, Sequence) or not at:
        raise ValueError(
            f'`distill.{name}` reads {at!r} of the {role}. Write a tap, for '
            "instance 'backbone[-1]', or a list of taps."
        )
    return tuple(at)


def check_entry(
    name: str, entry: Mapping
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Check the name and the keys of an entry of ``distill``.

    Args:
        name (str): Its name.
        entry (Mapping): Its configuration.

    Returns:
        tuple[tuple[str, ...], tuple[str, ...]]: The student's and the
        teacher's taps.

    Raises:
        ValueError: If the name misleads or is reserved, or a key is unknown
            or missing.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
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
    head = entry.get('teacher_head')
    if head is not None and (not isinstance(head, str) or {*'[@'} & {*head}):
        raise ValueError(
            f'`distill.{name}.teacher_head` is {head!r}. Name a module of '
            "the teacher, without an index, for instance 'head.fc'."
        )
    return (
        _taps(name, 'student', student_at),
        _taps(name, 'teacher', teacher_at),
    )


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
        student_at (Sequence[str]): The student's taps.
        teacher_at (Sequence[str]): The teacher's.
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
        teacher_head (str, optional): Path of the module of the teacher that
            a neck or a loss asks for by the arguments ``teacher_head`` (the
            module) or ``teacher_logits`` (what it returned). Defaults to
            None.
        stand_ins (Mapping, optional): What is supplied on meta tensors, for
            a batch of 2, see :func:`~.supply.stand_ins`. Defaults to None.

    A neck's or a loss's class can say, by attributes, how it is treated:

    - ``joint = True`` (a neck): it sees all levels at once, as lists, and
      is built with lists of channels.
    - ``resizes = True`` (a neck): it gets the student's map in its own size.
    - ``to_classes = True`` (a neck): it hands on logits, whatever it takes.
    - ``feature = 'map'`` or ``'vector'`` (a loss): what it compares, if not
      both.
    - ``over_classes = True`` (a loss): student and teacher need the same
      number of classes.
    - ``any_channels = True`` (a loss): they need no equal channels.
    - ``supplied`` (an attribute of an instance): which of the arguments that
      a distiller can supply it wants, rather than all that ``forward`` has.

    Raises:
        ValueError: If the tensors cannot be compared.
    """

    def __init__(
        self,
        name: str,
        student_at: Sequence[str],
        teacher_at: Sequence[str],
        student_shapes: list[torch.Size],
        teacher_shapes: list[torch.Size],
        input_size: tuple[int, int],
        loss: dict,
        neck: dict | None = None,
        weight: float = 1.0,
        schedule: dict | None = None,
        shared: bool = False,
        teacher_head: str | None = None,
        stand_ins: Mapping[str, Callable[[], object]] | None = None,
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
        self.student_at = tuple(student_at)
        self.teacher_at = tuple(teacher_at)
        self.teacher_head = teacher_head
        self.weight = float(weight)
        self.schedule = Schedule(**(schedule or {}))
        self.factor = self.schedule.factor(0, 0)
        #: The student's and the teacher's box head, of taps in a RoI head.
        self.box_heads = box_heads_of(
            name, self.student_at, self.teacher_at, teacher_head
        )
        student_text, teacher_text = self._texts
        if len(student_shapes) != len(teacher_shapes):
            raise ValueError(
                f'`distill.{name}`: {student_text} gives '
                f'{len(student_shapes)} tensors in the student, '
                f'{teacher_text} gives {len(teacher_shapes)} in the teacher. '
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
        # Whether a neck could not be tried, so that what the losses get is
        # not known for certain.
        self._guessed = False
        self.necks = self._build_necks(neck, shared)
        first = self.necks[0] if len(self.necks) else None
        # One neck sees all levels at once; it gets maps in their own size.
        self._joint = getattr(first, 'joint', False)
        self._resizes = self._joint or getattr(first, 'resizes', False)
        self._check_channels(channels, self._class('loss', loss))
        compared = self._aligned_shapes(2, stand_ins or {})
        self._check_ranks(compared, self._class('loss', loss))
        if shared:
            compared = compared[:1]
        self.losses = ModuleList(
            self._build('loss', loss, [s], [t]) for s, t in compared
        )
        self._check_supplied()

    @property
    def _texts(self) -> tuple[str, str]:
        """The student's and the teacher's taps, for messages."""
        return tuple(
            ' + '.join(repr(tap) for tap in taps)
            for taps in (self.student_at, self.teacher_at)
        )

    def _build_necks(self, config: dict | None, shared: bool) -> ModuleList:
        if config is None:
            return ModuleList()
        if getattr(self._class('neck', config), 'joint', False):
            students, teachers = zip(*self.shapes)
            neck = self._build('neck', config, students, teachers, True)
            return ModuleList([neck])
        levels = self.shapes[:1] if shared else self.shapes
        return ModuleList(
            self._build('neck', config, [s], [t]) for s, t in levels
        )

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
            student_text, teacher_text = self._texts
            raise ValueError(
                f'`distill.{self.name}` compares {student_text}, '
                f'{kind.get(len(student), "a tensor")} of shape '
                f'{tuple(student)}, with {teacher_text}, '
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

    def _class(self, part: str, config: dict) -> type:
        """The class that a neck's or a loss's configuration names."""
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
        kind = config['type']
        if isinstance(kind, type):
            return kind
        if not isinstance(kind, str):
            raise ValueError(
                f'`{key}.type` is {kind!r}. Write the name of one of ours, '
                'or package.Name.'
            )
        if '.' not in kind:
            MODELS.import_from_location()
            if kind not in MODELS.module_dict:
                raise ValueError(
                    f'`{key}.type` is {kind!r}, which mmdiffkd does not '
                    'have. ' + did_you_mean(kind, MODELS.module_dict)
                )
        return _find(kind, key)

    def _build(
        self,
        part: str,
        config: dict,
        students: Sequence[torch.Size],
        teachers: Sequence[torch.Size],
        joint: bool = False,
    ) -> nn.Module:
        """A neck or loss, in our scope, with channels and sizes filled in."""
        key = f'distill.{self.name}.{part}'
        accepted = inspect.signature(self._class(part, config)).parameters
        given = {k: v for k, v in config.items() if k != 'type'}
        check_arguments(self._class(part, config), given, key)
        config = {'_scope_': 'mmdiffkd', **config}
        for role, shapes in (('student', students), ('teacher', teachers)):
            for name, values in (
                (f'{role}_channels', [s[1] for s in shapes]),
                (f'{role}_size', [tuple(s[2:]) or None for s in shapes]),
            ):
                if name not in accepted:
                    continue
                found = values if joint else values[0]
                if config.get(name) is None:
                    config[name] = found
                elif name.endswith('channels') and config[name] != found:
                    self._check_given(f'{key}.{name}', config[name], found)
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

    def _check_given(self, key: str, given: object, found: object) -> None:
        if self._guessed and '.loss.' in key:
            return
        raise ValueError(
            f'`{key}` is {given!r}, but {found} channels are compared there. '
            'Leave it out: it is read off the networks.'
        )

    def _check_channels(
        self, channels: list[tuple[int, int]], loss: type
    ) -> None:
        student_text, teacher_text = self._texts
        for student, teacher in channels:
            if student == teacher:
                continue
            handed_on = [getattr(n, 'to_classes', False) for n in self.necks]
            if getattr(loss, 'over_classes', False) and not any(handed_on):
                raise ValueError(
                    f'`distill.{self.name}`: '
                    f'{loss.__name__} compares '
                    f'distributions over classes, but {student_text} '
                    f'has {student} and {teacher_text} has {teacher}. '
                    'Train both networks on the same classes, or compare '
                    'features with another loss.'
                )
            if not self.necks and not getattr(loss, 'any_channels', False):
                raise ValueError(
                    f'`distill.{self.name}` has no neck, and '
                    f'{student_text} has {student} channels where '
                    f'{teacher_text} has {teacher}. Add for instance '
                    "neck=dict(type='DiffKDNeck') or "
                    "neck=dict(type='ProjectionNeck')."
                )

    def _check_ranks(
        self, compared: list[tuple[torch.Size, torch.Size]], loss: type
    ) -> None:
        feature = getattr(loss, 'feature', None)
        cures = {
            'map': (4, 'maps (B, C, H, W)', 'Tap a stage before pooling.'),
            'vector': (2, 'vectors (B, C)', 'Tap what is pooled, or logits.'),
        }
        rank, words, cure = cures.get(feature, (None, '', ''))
        for _, shape in compared:
            if rank not in (None, len(shape)):
                raise ValueError(
                    f'`distill.{self.name}.loss`: {loss.__name__} compares '
                    f'{words}, but gets a tensor of shape {tuple(shape)}. '
                    + cure
                )

    def _check_supplied(self) -> None:
        for part in (*self.necks, *self.losses):
            if self.box_heads is None and 'roi_labels' in _wanted(part):
                raise ValueError(
                    f'`distill.{self.name}` has no tap in a RoI head, of '
                    f'whose boxes its {type(part).__name__} asks the classes '
                    "(`roi_labels`). Tap 'roi_head.bbox_head.fc_reg', or use "
                    'another neck or loss.'
                )
        if self.teacher_head is not None:
            return
        for part in (*self.necks, *self.losses):
            for name in ('teacher_head', 'teacher_logits'):
                if name in _wanted(part):
                    raise ValueError(
                        f'`distill.{self.name}` has no `teacher_head`, which '
                        f'its {type(part).__name__} asks for. Name the '
                        "teacher's classifier, for instance "
                        "teacher_head='head.fc'."
                    )

    def check_batch(
        self, batch_size: int, stand_ins: Mapping[str, Callable[[], object]]
    ) -> None:
        """See that the necks take a batch of this size, without arithmetic.

        Args:
            batch_size (int): The number of images.
            stand_ins (Mapping): What is supplied on meta tensors.

        Raises:
            ValueError: If a neck does not take the entry's tensors.
        """
        self._aligned_shapes(batch_size, stand_ins)

    def _aligned_shapes(
        self, batch_size: int, supply: Mapping[str, Callable[[], object]]
    ) -> list[tuple[torch.Size, torch.Size]]:
        """What the losses get, found by running the necks on meta tensors.

        A neck that cannot run so, because it asks for values, is not judged:
        it is taken to give what it takes, with the teacher's channels on both
        sides.
        """
        inputs = []
        for student, teacher in self.shapes:
            if not self._resizes:
                # A student's map has been resized by the time it is seen.
                student = student[:2] + teacher[2:]
            inputs.append(
                [
                    torch.empty(batch_size, *shape[1:], device='meta')
                    for shape in (student, teacher)
                ]
            )
        if not self.necks:
            return [(s.shape, t.shape) for s, t in inputs]
        if self._joint:
            calls = [(self.necks[0], tuple(map(list, zip(*inputs))))]
        else:
            calls = [
                (self.necks[level % len(self.necks)], tuple(pair))
                for level, pair in enumerate(inputs)
            ]
        shapes = []
        for neck, (student, teacher) in calls:
            wanted = {n: supply[n]() for n in _wanted(neck) if n in supply}
            aligned = self._try_neck(neck, student, teacher, wanted)
            if aligned is not None:
                student, teacher = aligned.student, aligned.teacher
            else:
                student = teacher
            if isinstance(student, Tensor):
                student, teacher = [student], [teacher]
            shapes += [(s.shape, t.shape) for s, t in zip(student, teacher)]
        return shapes

    def _try_neck(
        self,
        neck: nn.Module,
        student: object,
        teacher: object,
        supplied: dict[str, object],
    ) -> Aligned | None:
        if any(isinstance(m, nn.SyncBatchNorm) for m in neck.modules()):
            # The batch counts over all processes, and wants a GPU.
            self._guessed = True
            return None
        state = dict(neck.named_parameters()) | dict(neck.named_buffers())
        meta = {
            name: torch.empty_like(tensor, device='meta')
            for name, tensor in state.items()
        }
        try:
            with torch.no_grad():
                return functional_call(
                    neck,
                    meta,
                    (student, teacher),
                    supplied,
                    tie_weights=False,
                )
        except ValueError as error:
            raise ValueError(f'`distill.{self.name}.neck`: {error}') from error
        except Exception as error:
            if 'teacher_head' in supplied and isinstance(error, RuntimeError):
                raise ValueError(
                    f'`distill.{self.name}.teacher_head` is '
                    f'{self.teacher_head!r}, which does not take what '
                    f'{self._texts[1]} gives, averaged over positions: '
                    f'{error}. Tap the feature that it reads.'
                ) from error
            print_log(
                f'distill.{self.name}.neck was not tried before training: '
                f'{error}',
                'current',
            )
            self._guessed = True
            return None

    @property
    def active(self) -> bool:
        """Whether the entry has a weight other than 0 now."""
        return self.weight * self.factor != 0

    def set_progress(self, epoch: int, iteration: int) -> None:
        """Bring the scheduled weight up to date, both counted from 0."""
        self.factor = self.schedule.factor(epoch, iteration)

    def align(
        self, student: Tensor, teacher: Tensor, image: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Tokens become maps; the student's map gets the teacher's size."""
        if student.ndim == 3:
            student = tokens_to_map(student, image)
        if teacher.ndim == 3:
            teacher = tokens_to_map(teacher, image)
        if student.shape[2:] != teacher.shape[2:] and not self._resizes:
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
        if any(tensor.numel() == 0 for tensor in (*students, *teachers)):
            # No box was sampled: there is nothing to take a mean of.
            touched = [tensor.sum() for tensor in students]
            return self.idle(touched), {}
        losses: dict[str, Tensor] = {}
        metrics: dict[str, Tensor] = {}
        scale = self.weight * self.factor

        def add(key: str, value: Tensor) -> None:
            losses[key] = losses.get(key, 0) + value * scale

        calls = self._calls(students, teachers, image)
        drawn = self._draw_for_necks(calls, seed)
        level = 0
        for (neck, tensors), random in zip(calls, drawn):
            aligned = Aligned(*tensors, {}, {})
            if neck is not None:
                aligned = neck(*tensors, **_supplied(neck, supply), **random)
            pairs = [(aligned.student, aligned.teacher)]
            if self._joint:
                pairs = list(zip(aligned.student, aligned.teacher))
            for pair in pairs:
                loss = self.losses[level % len(self.losses)]
                random = {}
                if hasattr(loss, 'draw'):
                    random = self._draw(loss, pair, (*seed, level, 'loss'))
                distance = loss(*pair, **_supplied(loss, supply), **random)
                add('loss_kd', distance)
                level += 1
            for key, value in aligned.losses.items():
                add(key, value)
            for key, value in aligned.metrics.items():
                share = value.detach() / len(calls)
                metrics[key] = metrics.get(key, 0) + share
        return losses, metrics

    def _calls(
        self,
        students: list[Tensor],
        teachers: list[Tensor],
        image: Sequence[int],
    ) -> list[tuple[nn.Module | None, tuple]]:
        """Each neck with what it is called on; None for no neck."""
        pairs = [
            self.align(student, teacher, image)
            for student, teacher in zip(students, teachers)
        ]
        if self._joint:
            lists = [s for s, _ in pairs], [t for _, t in pairs]
            return [(self.necks[0], lists)]
        if len(self.necks) == 0:
            return [(None, pair) for pair in pairs]
        return [
            (self.necks[level % len(self.necks)], pair)
            for level, pair in enumerate(pairs)
        ]

    @torch.compiler.disable
    def _draw_for_necks(
        self, calls: list[tuple[nn.Module | None, tuple]], seed: tuple
    ) -> list[dict[str, Tensor]]:
        """What is random in the necks, all at once: one break of a graph."""
        return [
            self._draw(neck, tensors, (*seed, level))
            if hasattr(neck, 'draw')
            else {}
            for level, (neck, tensors) in enumerate(calls)
        ]

    @torch.compiler.disable
    def _draw(
        self, module: nn.Module, tensors: tuple, seed: tuple
    ) -> dict[str, Tensor]:
        """Noise, timesteps and masks, from a stream of this step's own."""
        first = tensors[0] if isinstance(tensors[0], Tensor) else tensors[0][0]
        generator = torch.Generator(first.device)
        generator.manual_seed(derive_seed(self.name, *seed))
        return module.draw(*tensors, generator)

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
            drawn = self._draw(neck, (student, teacher), (*seed, level))
            shown.append(neck.trajectory(student, teacher, drawn['noise']))
        return shown

    def idle(self, touched: Sequence[Tensor] = ()) -> dict[str, Tensor]:
        """A loss of 0 that touches every parameter, as DDP wants.

        Nothing is computed from the parameters' values, so that the result
        is 0 whatever they are.

        Args:
            touched (Sequence[Tensor]): Scalars of 0 to add. Defaults to ().
        """
        parameters = self.parameters()
        touched = [*touched, *(p.flatten()[:0].sum() for p in parameters)]
        return {'loss_kd': sum(touched)} if touched else {}

    def describe(self) -> list[str]:
        """What is compared, one line a level."""
        lines = []
        student_text, teacher_text = (
            ' + '.join(taps) for taps in (self.student_at, self.teacher_at)
        )
        for level, (student, teacher) in enumerate(self.shapes):
            parts = [f'loss {type(self.losses[0]).__name__}']
            if self.necks:
                neck = self.necks[level % len(self.necks)]
                count = sum(p.numel() for p in neck.parameters())
                parts.insert(0, f'{type(neck).__name__}, {count:,} parameters')
            if student[2:] != teacher[2:] and not self._resizes:
                parts.append("student's map resized")
            lines.append(
                f'distill.{self.name}: student {student_text} '
                f'{tuple(student[1:])} -> teacher {teacher_text} '
                f'{tuple(teacher[1:])}; ' + '; '.join(parts)
            )
        return lines
