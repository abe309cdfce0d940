"""The distiller: a student that trains beside a frozen teacher."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from mmengine.dist import broadcast_object_list, get_rank
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import Tensor, nn

from mmdiffkd.registry import MODELS
from mmdiffkd.utils import DISTILL_PREFIX
from mmdiffkd.utils.naming import left_over_hint
from mmdiffkd.utils.randomness import isolated_randomness
from mmdiffkd.utils.safe_loader import guard_checkpoints

from .build import build_entry
from .context import batch_supply, meta_supply, roi_supply, teacher_supply
from .entry import Entry
from .expansion import Expansion, expand, is_preset
from .forward import arguments_of, forward_to_taps
from .image_shape import find_shape, image_shapes
from .inputs import TeacherInputs
from .nested import check_student, check_teacher
from .preparation import prepare_losses
from .probe import shapes_behind_necks, tapped_levels
from .rois import Sampled, SampledBoxes, pair_box_heads
from .spec import DistillerSpec, read_entries
from .state_dict import name_as_plain_student
from .taps import Taps
from .teacher import FrozenTeacher


@MODELS.register_module()
class Distiller(BaseModel):
    """Trains a student with the losses of its recipe and distillation's.

    In mode ``'loss'`` it adds to the student's own losses, which keep their
    names, ``distill.<entry>.loss_*`` of every entry. Modes ``'predict'`` and
    ``'tensor'`` are the student's alone, and so are attributes that the
    distiller lacks. The student and the distillation necks are trained; the
    teacher is frozen (see :class:`FrozenTeacher`).

    An attribute that the distiller lacks and the student has is the
    student's, to read and to set: hooks that change the model of a recipe
    (its ``loss_module``, say) change the student.

    Its state dict is the plain student's plus ``distill.*`` for the necks,
    and it loads a plain student's.

    Everything but the student draws from random streams of its own, so that
    with all weights at 0 the student's training is bit for bit the plain
    one's.

    Args:
        student (dict or nn.Module): The student's model configuration.
        teacher (dict): The keys of :class:`~.spec.TeacherSpec`.
        distill (dict or str): The entries by name, each a dict with the keys
            of :class:`~.spec.EntrySpec`. An entry of None is left out. Or the
            name of a preset, or a dict with that as ``preset``, see
            :func:`~.expansion.expand`.
        data_preprocessor (dict, optional): The student's, where a recipe
            keeps it at the top level of its config. Defaults to None.
        input_size (int or tuple[int, int], optional): Size of the images of
            the dry run, (height, width). Defaults to None: the backbone's
            ``img_size``, else 224 for classifiers and 256 otherwise; if the
            student does not run on that, a size that it declares.
        input_shape (Sequence[int], optional): The whole shape of an image
            without the batch, (channels, height, width), or of a clip,
            (frames, channels, height, width); takes the place of
            ``input_size``. Defaults to None: the channels are those of the
            student's first convolution or of its data preprocessor's mean,
            else 3.

    Raises:
        ValueError: If an argument is missing, unknown or wrong, or a tap, an
            entry or the teacher is at fault; the message names the key, the
            value and the cure.
    """

    def __init__(
        self,
        student: dict | nn.Module = None,
        teacher: dict = None,
        distill: dict | str = None,
        data_preprocessor: dict | None = None,
        input_size: int | tuple[int, int] | None = None,
        input_shape: Sequence[int] | None = None,
        **unknown,
    ) -> None:
        required = dict(student=student, teacher=teacher, distill=distill)
        given = {k: v for k, v in required.items() if v is not None}
        DistillerSpec.read(given | unknown, 'model')
        if isinstance(student, nn.Module):
            if data_preprocessor is not None:
                raise ValueError(
                    '`student` is a built module, which has its own data '
                    'preprocessor. Leave `data_preprocessor` out, or give '
                    'the student as a dict.'
                )
        else:
            student = student.copy()
            if data_preprocessor is not None:
                student.setdefault('data_preprocessor', data_preprocessor)
            try:
                student = MMENGINE_MODELS.build(student)
            except TypeError as error:
                hint = left_over_hint(error)
                if data_preprocessor and "'data_preprocessor'" in str(error):
                    hint = (
                        '. The recipe has it at its top level: leave it out '
                        'there, or let the class take it.'
                    )
                raise TypeError(f'`student`: {error}{hint}') from error
        with isolated_randomness():
            own = getattr(student, 'data_preprocessor', None)
            super().__init__(data_preprocessor=own)
            if own is not None:
                # The student holds it; here it is found like any attribute.
                del self._modules['data_preprocessor']
            self.student = student
            check_student(student)
            self._build(
                teacher,
                distill,
                image_shapes(student, input_size, input_shape),
            )
        self._step = 0
        self._progress_is_known = False
        self._seed: int | None = None
        self._rank = get_rank()
        name_as_plain_student(self)
        self.register_load_state_dict_post_hook(_restore_step)
        self.metrics: dict[str, Tensor] = {}
        self._is_built = True

    def _build(
        self,
        teacher: dict,
        distill: str | Mapping[str, Mapping | None],
        image_shapes: Sequence[tuple[int, ...]],
    ) -> None:
        #: What the preset stands for, where `distill` names one.
        self.expansion: Expansion | None = None
        specs = {} if is_preset(distill) else read_entries(distill)
        self.teacher = FrozenTeacher(**teacher)
        check_teacher(self.teacher.network)
        if is_preset(distill):
            self.expansion = expand(
                distill, self.student, self.teacher.network, image_shapes
            )
            text = self.expansion.text()
            print_log(f'`distill` stands for\n\n{text}\n', 'current')
            specs = read_entries(self.expansion.entries)
        if not specs:
            print_log(
                '`distill` has no entry. The student is trained without '
                'distillation.',
                'current',
                logging.WARNING,
            )
        self.teacher.match_input(self.data_preprocessor)
        self.teacher.match_student(self.student)
        student_taps = dict.fromkeys(
            tap for spec in specs.values() for tap in spec.student_at
        )
        teacher_taps = dict.fromkeys(
            tap
            for spec in specs.values()
            for tap in (*spec.teacher_at, spec.teacher_head)
            if tap is not None
        )
        self.student_taps = Taps(self.student, student_taps, 'student')
        shape, shapes, self._heads = find_shape(
            self.student, self.student_taps, image_shapes, training=True
        )
        self.input_shape = shape
        self._inputs = TeacherInputs(self.student, shape)
        students = tapped_levels(
            self.student, self.student_taps, shapes, shape, training=True
        )
        shapes = self.teacher.attach(list(teacher_taps), shape)
        teachers = tapped_levels(
            self.teacher.network, self.teacher.taps, shapes, shape, False
        )
        self._logits_shapes = {tap: each[0] for tap, each in shapes.items()}
        self.distill = nn.ModuleDict()
        self.distill.register_buffer('step', torch.zeros((), dtype=torch.long))
        for name, spec in specs.items():
            self.distill[name] = build_entry(
                name,
                spec,
                _levels(students, spec.student_at),
                _levels(teachers, spec.teacher_at),
                shape[-2:],
                self._meta_supply(spec.teacher_head, 2),
            )
            for line in self.distill[name].describe():
                print_log(line, 'current')
        pairs = {name: e.box_heads for name, e in self.distill.items()}
        self._boxes_of = pair_box_heads(pairs)
        self._sampled_boxes = SampledBoxes(
            self.student, self._boxes_of.values()
        )

    def init_weights(self) -> None:
        """Initialise the student as its recipe does, then everything else.

        From here on MMEngine reads checkpoints without running code from
        them, see :func:`~mmdiffkd.utils.safe_loader.guard_checkpoints`.

        Raises:
            FileNotFoundError: If there is no such teacher checkpoint.
            ValueError: If the teacher's checkpoint does not fit.
        """
        guard_checkpoints()
        if hasattr(self.student, 'init_weights'):
            self.student.init_weights()
        with isolated_randomness():
            self.teacher.init_weights()
            self.teacher.initialize_student(self.student)
            for entry in self.distill.values():
                entry.init_weights()

    def forward(
        self,
        inputs: Tensor,
        data_samples: list | None = None,
        mode: str = 'tensor',
    ) -> Any:
        """The student's forward, with distillation losses in mode 'loss'.

        Args:
            inputs (Tensor): Normalised images (B, C, H, W), or whatever else
                the student takes.
            data_samples (list, optional): Annotations. Defaults to None.
            mode (str): ``'loss'``, ``'predict'`` or ``'tensor'``. Defaults
                to ``'tensor'``.

        Returns:
            In mode ``'loss'`` a dict of tensors; else what the student
            returns.
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        return self.student(inputs, data_samples, mode=mode)

    def loss(self, inputs: Tensor, data_samples: list | None) -> dict:
        """The student's losses and those of every entry.

        An entry whose weight is 0, or whose RoI head sampled no box,
        contributes a loss of exactly 0 that touches its parameters. If all
        weights are 0, the teacher is not run.

        Args:
            inputs (Tensor): Normalised images (B, C, H, W). Of a list of
                views or a dict of branches, the teacher gets what the
                student's backbone gets.
            data_samples (list, optional): Annotations.

        Returns:
            dict: Losses by name.
        """
        self._check_schedules()
        active = [e for e in self.distill.values() if e.active]
        if active:
            self._inputs.check(inputs)
        seed = self._next_seed()
        taps = dict.fromkeys(tap for e in active for tap in e.student_at)
        with (
            self._inputs.record(inputs) if active else nullcontext(),
            self.student_taps.record(taps),
            self._sampled_boxes.record() as sampled,
        ):
            losses = dict(self.student(inputs, data_samples, mode='loss'))
        # A cascade without boxes leaves out its later stages.
        active = [
            e
            for e in active
            if e.box_heads is None or e.box_heads[0] in sampled
        ]
        images, views = inputs, []
        if active:
            images, views = self._inputs.images(inputs)
        students = {
            e.name: e.read_student(self.student_taps, views) for e in active
        }
        self.student_taps.clear()
        teachers = self._teacher_tensors(images, active, sampled, data_samples)
        supply = batch_supply(images, data_samples)
        self.metrics = {}
        for name, entry in self.distill.items():
            if name in students:
                terms, metrics = entry(
                    students[name],
                    _levels(teachers, entry.teacher_at),
                    images.shape[-2:],
                    supply
                    | teacher_supply(
                        self.teacher.network, entry.teacher_head, teachers
                    )
                    | roi_supply(entry.box_heads, sampled),
                    seed,
                )
            else:
                terms, metrics = entry.idle(), {}
            for key, value in terms.items():
                losses[f'{DISTILL_PREFIX}{name}.{key}'] = value
            for key, value in metrics.items():
                self.metrics[f'{DISTILL_PREFIX}{name}.{key}'] = value
        return losses

    def _teacher_tensors(
        self,
        inputs: Tensor,
        entries: list[Entry],
        sampled: Mapping[str, Sampled],
        data_samples: list | None = None,
    ) -> dict[str, list[Tensor]]:
        """What the teacher's taps of some entries yield, by tap."""
        taps = dict.fromkeys(
            tap
            for entry in entries
            for tap in (*entry.teacher_at, entry.teacher_head)
            if tap is not None
        )
        boxes = {
            teacher: sampled[student].boxes
            for teacher, student in self._boxes_of.items()
            if student in sampled
        }
        if not taps:
            return {}
        return self.teacher(inputs, list(taps), boxes, data_samples)

    @torch.compiler.disable
    def _next_seed(self) -> tuple[int, int, int]:
        """What the random streams of this step depend on."""
        if self._seed is None:
            # Ranks may be seeded apart; the rank enters the stream itself.
            seed = [torch.initial_seed()]
            broadcast_object_list(seed)
            self._seed = seed[0]
        step = self._step
        if self.training:
            self._step += 1
            self.distill.step.fill_(self._step)
        return self._seed, self._rank, step

    @property
    def noise_stream(self) -> tuple[int | None, int]:
        """The run's seed, None before the first step, and the rank.

        With the step they decide what is drawn. Set both to repeat a step of
        another process.
        """
        return self._seed, self._rank

    @noise_stream.setter
    def noise_stream(self, stream: tuple[int | None, int]) -> None:
        self._seed, self._rank = stream

    def _check_schedules(self) -> None:
        if self._progress_is_known or not self.training:
            return
        for name, entry in self.distill.items():
            if not entry.schedule.constant:
                raise ValueError(
                    f'`distill.{name}.schedule` is set, but nothing tells '
                    'the distiller how far training is. Add default_hooks='
                    "dict(distill=dict(type='mmdiffkd.DistillHook')), or "
                    'call set_progress(epoch, iteration) before each step.'
                )

    def set_progress(self, epoch: int, iteration: int) -> None:
        """Bring scheduled weights up to date, both counted from 0."""
        self._progress_is_known = True
        for entry in self.distill.values():
            entry.set_progress(epoch, iteration)

    def _meta_supply(self, head: str | None, batch_size: int) -> dict:
        if head is None:
            return meta_supply(batch_size, self.input_shape[-2:])
        module = self.teacher.network.get_submodule(head)
        return meta_supply(
            batch_size,
            self.input_shape[-2:],
            module,
            self._logits_shapes[head],
        )

    def check_batch(self, batch_size: int, entry: str | None = None) -> None:
        """See that the necks take a batch of this size, without arithmetic.

        Args:
            batch_size (int): The number of images.
            entry (str, optional): Whose necks. Defaults to None, every
                entry's.

        Raises:
            ValueError: If a neck does not take its tensors.
        """
        for name, each in self.distill.items():
            if entry in (None, name):
                shapes_behind_necks(
                    name,
                    each.spec,
                    each.necks,
                    each.shapes,
                    batch_size,
                    self._meta_supply(each.teacher_head, batch_size),
                )

    @property
    def needs_allocation(self) -> bool:
        """Whether a neck or a loss has to know how long the data is."""
        return any(
            part.overrides('allocate')
            for entry in self.distill.values()
            for part in entry.parts
        )

    def allocate(self, dataset_length: int, labels: Tensor | None) -> None:
        """Tell the necks and losses that ask for it how long the data is.

        Args:
            dataset_length (int): Number of training samples.
            labels (Tensor, optional): Their class indices
                (dataset_length,), where the data set knows them.
        """
        with isolated_randomness():
            for entry in self.distill.values():
                for part in entry.parts:
                    part.allocate(dataset_length, labels)

    @property
    def needs_preparation(self) -> bool:
        """Whether a loss asks for a pass over the training data."""
        return not all(
            loss.prepared
            for entry in self.distill.values()
            for loss in entry.losses
        )

    def prepare(self, batches: Callable[[], Iterable[Tensor]]) -> None:
        """Show the teacher's tensors to the losses that ask for a pass.

        Args:
            batches (Callable): Gives the training set's inputs, batch by
                batch, normalised, each time it is called.
        """

        def checked() -> Iterator[Tensor]:
            for inputs in batches():
                self._inputs.check(inputs)
                yield inputs

        for entry in self.distill.values():
            prepare_losses(entry, checked, self._teacher_tensors)

    def idle_parameters(self) -> list[nn.Parameter]:
        """Parameters of the entries whose weight is 0 now."""
        return [
            parameter
            for entry in self.distill.values()
            if not entry.active
            for parameter in entry.parameters()
        ]

    @torch.no_grad()
    def trajectories(
        self, inputs: Tensor
    ) -> dict[str, list[list[tuple[str, Tensor]]]]:
        """What the denoisers do to the student's features, step by step.

        Args:
            inputs (Tensor): Normalised images (B, C, H, W).

        Returns:
            dict: For every entry whose neck denoises maps, one list a level
            of (caption, map) pairs from the student's latent to the
            teacher's.
        """
        shown = {n: e for n, e in self.distill.items() if e.pictured}
        seed = self._seed or 0, self._rank, self._step
        was_training = self.training
        self.eval()
        try:
            taps = {tap for e in shown.values() for tap in e.student_at}
            heads = sorted({self._heads[t] for t in taps if t in self._heads})
            given = arguments_of(self.student, heads, inputs)
            with (
                isolated_randomness(),
                self.student_taps.record(taps, self.student_taps.stops),
            ):
                forward_to_taps(self.student, inputs, given)
            students = {tap: self.student_taps.read(tap) for tap in taps}
            teachers = self._teacher_tensors(inputs, list(shown.values()), {})
            return {
                name: e.trajectories(
                    _levels(students, e.student_at),
                    _levels(teachers, e.teacher_at),
                    inputs.shape[-2:],
                    seed,
                )
                for name, e in shown.items()
            }
        finally:
            self.student_taps.clear()
            self.train(was_training)

    def parse_losses(self, losses: dict) -> tuple[Tensor, dict]:
        """Add up what is a loss, as the student's class does."""
        if hasattr(self.student, 'parse_losses'):
            return self.student.parse_losses(losses)
        return super().parse_losses(losses)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            student = self.__dict__.get('_modules', {}).get('student')
            if student is None or name.startswith('_'):
                raise
            return getattr(student, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if self._is_of_the_student(name):
            setattr(self.student, name, value)
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if self._is_of_the_student(name):
            delattr(self.student, name)
        else:
            super().__delattr__(name)

    def _is_of_the_student(self, name: str) -> bool:
        """Whether the distiller lacks an attribute that the student has."""
        own = self.__dict__
        return (
            '_is_built' in own
            and not name.startswith('_')
            and not hasattr(type(self), name)
            and not any(
                name in names
                for names in (
                    own,
                    own['_modules'],
                    own['_parameters'],
                    own['_buffers'],
                )
            )
            and hasattr(self.student, name)
            # What is worked out by the student cannot be set there.
            and not isinstance(
                getattr(type(self.student), name, None), property
            )
        )


def _levels(by_tap: Mapping[str, list], taps: Sequence[str]) -> list:
    """What several taps yield, in a row."""
    return [tensor for tap in taps for tensor in by_tap[tap]]


def _restore_step(distiller: Distiller, incompatible) -> None:
    """After loading: what is drawn depends on the step of the file."""
    distiller._step = int(distiller.distill.step)
