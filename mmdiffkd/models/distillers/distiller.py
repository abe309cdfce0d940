"""The distiller: a student that trains beside frozen teachers."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from mmengine.dist import broadcast_object_list, get_rank
from mmengine.logging import print_log
from mmengine.model import BaseDataPreprocessor, BaseModule
from torch import Tensor, nn

from mmdiffkd.registry import MODELS
from mmdiffkd.utils import DISTILL_PREFIX
from mmdiffkd.utils.randomness import isolated_randomness
from mmdiffkd.utils.safe_loader import guard_checkpoints

from .build import build_entries, check_batch
from .context import batch_supply, roi_supply, teacher_supply
from .entry import Entry
from .expansion import Expansion, expand, is_preset
from .forward import has_modes, run_without_modes
from .image_shape import image_shapes
from .inputs import TeacherInputs
from .nested import check_student
from .preparation import prepare_losses
from .rois import Sampled, SampledBoxes
from .scheduled import Scheduled, check_trains
from .spec import DistillerSpec, read_entries
from .state_dict import name_as_plain_student
from .student import ImagesAsGiven, build_student
from .student_proxy import StudentProxy
from .tapped_network import TappedNetwork
from .task import Task
from .teacher import FrozenTeacher
from .teachers import (
    attach_teachers,
    box_heads,
    build_teachers,
    match_teachers,
    run_teachers,
)


@MODELS.register_module()
class Distiller(StudentProxy):
    """Trains a student with the losses of its recipe and distillation's.

    In mode ``'loss'`` it adds to the student's own losses, which keep their
    names, ``distill.<entry>.loss_*`` of every entry. Modes ``'predict'`` and
    ``'tensor'`` are the student's alone, and so are attributes that the
    distiller lacks. The student and the distillation necks are trained; the
    teacher is frozen (see :class:`FrozenTeacher`). Several teachers run one
    after the other, each once a step, and only those that an entry with a
    weight above 0 reads.

    An attribute that the distiller lacks and the student has is the
    student's, to read and to set: hooks that change the model of a recipe
    (its ``loss_module``, say) change the student.

    A student whose forward takes no ``mode``, as a plain ``nn.Module``'s, has
    no losses of its own. It gets the images alone, and mode ``'loss'`` gives
    distillation's losses.

    Its state dict is the plain student's plus ``distill.*`` for the necks,
    and it loads a plain student's.

    With ``task_weight`` 0 nothing of the student runs behind its taps, and
    a batch needs no annotations. What no entry trains then is as idle as an
    entry whose weight is 0.

    Everything but the student draws from random streams of its own, so that
    with all weights at 0 the student's training is bit for bit the plain
    one's.

    Args:
        student (dict or nn.Module): The student's model configuration, or
            a built module. Around a built module the distiller reads the
            teacher's weights at once, otherwise in :meth:`init_weights`.
        teacher (dict or nn.Module): The keys of :class:`~.spec.TeacherSpec`,
            or a built network with its weights.
        distill (dict or str): The entries by name, each a dict with the keys
            of :class:`~.spec.EntrySpec`. An entry of None is left out. Or the
            name of a preset, or a dict with that as ``preset``, see
            :func:`~.expansion.expand`.
        data_preprocessor (dict, optional): The student's, where a recipe
            keeps it at the top level of its config. For a built module
            without one: what has normalised the images that the distiller is
            called on. Defaults to None.
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
        teachers (dict, optional): Several teachers by name, in place of
            ``teacher``; entries name the one that they read. A teacher of
            None is left out. Defaults to None.
        task_weight (float): Multiplies the student's own losses. Defaults
            to 1.0.
        task_schedule (dict, optional): The keys of
            :class:`~.spec.ScheduleSpec`: how ``task_weight`` changes over a
            run. Defaults to None.

    Raises:
        ValueError: If an argument is missing, unknown or wrong, or a tap, an
            entry or the teacher is at fault; the message names the key, the
            value and the cure.
    """

    def __init__(
        self,
        student: dict | nn.Module = None,
        teacher: dict | nn.Module = None,
        distill: dict | str = None,
        data_preprocessor: dict | None = None,
        input_size: int | tuple[int, int] | None = None,
        input_shape: Sequence[int] | None = None,
        teachers: dict | None = None,
        task_weight: float = 1.0,
        task_schedule: dict | None = None,
        **unknown,
    ) -> None:
        required = dict(
            student=student,
            teacher=teacher,
            teachers=teachers,
            distill=distill,
        )
        given = {k: v for k, v in required.items() if v is not None}
        task = dict(task_weight=task_weight, task_schedule=task_schedule)
        spec = DistillerSpec.read(given | task | unknown, 'model')
        is_built = isinstance(student, nn.Module)
        student = build_student(student, data_preprocessor)
        with isolated_randomness():
            own = getattr(student, 'data_preprocessor', None)
            given = data_preprocessor if is_built else None
            super().__init__(own or given)
            if own is not None:
                # The student holds it; here it is found like any attribute.
                del self._modules['data_preprocessor']
            self.student = student
            self._has_modes = has_modes(student)
            self.student_task = Task(
                student, spec.task_weight, spec.task_schedule
            )
            check_student(student)
            nobody_says = is_built and own is None and given is None
            self._build(
                spec.teachers_by_name,
                distill,
                image_shapes(student, input_size, input_shape),
                ImagesAsGiven() if nobody_says else self.data_preprocessor,
            )
        self._step = 0
        self._progress_is_known = False
        self._seed: int | None = None
        self._rank = get_rank()
        name_as_plain_student(self)
        self.register_load_state_dict_post_hook(_restore_step)
        self.metrics: dict[str, Tensor] = {}
        self._is_built = True
        if is_built:
            self._load()

    def _build(
        self,
        teachers: Mapping[str, Mapping | nn.Module],
        distill: str | Mapping[str, Mapping | None],
        image_shapes: Sequence[tuple[int, ...]],
        preprocessor: BaseDataPreprocessor,
    ) -> None:
        by_preset = is_preset(distill)
        specs = {} if by_preset else read_entries(distill, teachers)
        #: The teachers by name; the only one is called 'teacher' unless it
        #: has a name.
        self.teachers = nn.ModuleDict(build_teachers(teachers, self.student))
        #: What the preset stands for, where `distill` names one.
        self.expansion: Expansion | None = None
        if by_preset:
            if len(teachers) > 1:
                raise ValueError(
                    f'`distill` is {distill!r}, a preset, which has one '
                    f'teacher. There are {", ".join(map(repr, teachers))}. '
                    'Leave one, or write the entries: with one teacher, the '
                    'log shows what the preset stands for.'
                )
            self.expansion = expand(
                distill, self.student, self.teacher.network, image_shapes
            )
            text = self.expansion.text()
            print_log(f'`distill` stands for\n\n{text}\n', 'current')
            specs = read_entries(self.expansion.entries, teachers)
        if not specs:
            print_log(
                '`distill` has no entry. The student is trained without '
                'distillation.',
                'current',
                logging.WARNING,
            )
        match_teachers(self.teachers, self.student, preprocessor)
        taps = [tap for spec in specs.values() for tap in spec.student_at]
        self._tapped = tapped = TappedNetwork(
            self.student, taps, 'student', image_shapes
        )
        self.student_taps = tapped.taps
        self.input_shape = shape = tapped.input_shape
        self._inputs = TeacherInputs(self.student, shape)
        attach_teachers(self.teachers, specs.values(), shape)
        self.distill = nn.ModuleDict(
            build_entries(specs, tapped, self.teachers)
        )
        self.distill.register_buffer('step', torch.zeros((), dtype=torch.long))
        entries = list(self.distill.values())
        self._sampled_boxes = SampledBoxes(
            self.student,
            [
                box
                for name in self.teachers
                for box in box_heads(name, entries).values()
            ],
        )
        self.student_task.prepare(self.distill, tapped)
        if not self.student_task.always_active:
            check_trains(self.scheduled, 0, 0)

    @property
    def scheduled(self) -> dict[str, Scheduled]:
        """The weights that schedules change, by the key of the schedule."""
        return {
            'model.task_schedule': self.student_task,
            **{f'distill.{n}.schedule': e for n, e in self.distill.items()},
        }

    @property
    def teacher(self) -> FrozenTeacher:
        """The only teacher.

        Raises:
            AttributeError: If there are several; they are in ``teachers``.
        """
        if len(self.teachers) > 1:
            raise AttributeError(
                'a distiller of several teachers has no `teacher`. They are '
                'in `teachers`, by name'
            )
        return next(iter(self.teachers.values()))

    def init_weights(self) -> None:
        """Initialise the student as its recipe does, then everything else.

        From here on MMEngine reads checkpoints without running code from
        them, see :func:`~mmdiffkd.utils.safe_loader.guard_checkpoints`.

        Raises:
            FileNotFoundError: If there is no such teacher checkpoint.
            ValueError: If the teacher's checkpoint does not fit.
        """
        guard_checkpoints()
        # A built module of another library comes with its weights, which its
        # own `init_weights` may draw again.
        has_weights = not isinstance(self.student, BaseModule) and any(
            teacher.is_loaded for teacher in self.teachers.values()
        )
        if hasattr(self.student, 'init_weights') and not has_weights:
            self.student.init_weights()
        self._load()

    def _load(self) -> None:
        """Read the teacher's weights, and initialise all but the student."""
        guard_checkpoints()
        with isolated_randomness():
            for teacher in self.teachers.values():
                with teacher.named_in_errors():
                    teacher.init_weights()
                teacher.initialize_student(self.student)
            for entry in self.distill.values():
                if not entry.is_init:
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
            data_samples (list, optional): Annotations, or whatever else the
                student takes. Defaults to None.
            mode (str): ``'loss'``, ``'predict'`` or ``'tensor'``. Defaults
                to ``'tensor'``.

        Returns:
            In mode ``'loss'`` a dict of tensors; else what the student
            returns.

        Raises:
            ValueError: If a student whose forward takes no ``mode`` gets
                ``data_samples``.
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        return self._in_mode(inputs, data_samples, mode)

    def _in_mode(self, inputs: Tensor, data_samples: object, mode: str) -> Any:
        if self._has_modes:
            return self.student(inputs, data_samples, mode=mode)
        return run_without_modes(self.student, inputs, data_samples, mode)

    def loss(self, inputs: Tensor, data_samples: list | None) -> dict:
        """The student's losses and those of every entry.

        An entry whose weight is 0, or whose RoI head sampled no box,
        contributes a loss of exactly 0 that touches its parameters. A
        teacher that no other entry reads is not run. If ``task_weight`` is
        0, a ``loss_task`` of exactly 0 takes the place of the student's
        losses.

        Args:
            inputs (Tensor): Normalised images (B, C, H, W). Of a list of
                views or a dict of branches, the teacher gets what the
                student's backbone gets.
            data_samples (list, optional): Annotations.

        Returns:
            dict: Losses by name.
        """
        if self.training:
            for teacher in self.teachers.values():
                teacher.check_loaded()
            self._check_schedules()
        active = [e for e in self.distill.values() if e.active]
        if active:
            self._inputs.check(inputs)
        seed = self._next_seed()
        losses, sampled = self._run_student(inputs, data_samples, active)
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
        teachers = run_teachers(
            self.teachers, active, images, sampled, data_samples
        )
        supply = batch_supply(images, data_samples)
        self.metrics = {}
        for name, entry in self.distill.items():
            if name in students:
                first = entry.teachers[0]
                terms, metrics = entry(
                    students[name],
                    entry.read_teachers(teachers),
                    images.shape[-2:],
                    supply
                    | teacher_supply(
                        self.teachers[first].network,
                        entry.teacher_head,
                        teachers[first],
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

    def _run_student(
        self, inputs: Tensor, data_samples: list | None, active: list[Entry]
    ) -> tuple[dict, Mapping[str, Sampled]]:
        """The weighted losses of the task, and the boxes sampled for them.

        The student's taps of the entries have recorded then.
        """
        taps = dict.fromkeys(tap for e in active for tap in e.student_at)
        if not self.student_task.active:
            if not isinstance(inputs, Tensor):
                raise ValueError(
                    '`model.task_weight` is 0, and a batch gives the student '
                    f'a {type(inputs).__name__}. Without its own losses it '
                    'runs on one tensor of images: let the pipeline give one '
                    'image a sample.'
                )
            self._tapped.run(inputs, taps, data_samples=data_samples)
            return self.student_task.idle(self.distill), {}
        with (
            self._inputs.record(inputs) if active else nullcontext(),
            self.student_taps.record(taps),
            self._sampled_boxes.record() as sampled,
        ):
            losses = dict(self._in_mode(inputs, data_samples, 'loss'))
        return self.student_task.weigh(losses), sampled

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
        if self._progress_is_known:
            return
        for key, weight in self.scheduled.items():
            if not weight.schedule.constant:
                raise ValueError(
                    f'`{key}` is set, but nothing tells '
                    'the distiller how far training is. Add default_hooks='
                    "dict(distill=dict(type='mmdiffkd.DistillHook')), or "
                    'call set_progress(epoch, iteration) before each step.'
                )

    def set_progress(self, epoch: int, iteration: int) -> None:
        """Bring scheduled weights up to date, both counted from 0."""
        self._progress_is_known = True
        for weight in self.scheduled.values():
            weight.set_progress(epoch, iteration)

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
                check_batch(each, self.teachers, self._tapped, batch_size)

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
            prepare_losses(entry, checked, self.teachers)

    def idle_parameters(self) -> list[nn.Parameter]:
        """Parameters of entries whose weight is 0 now, and untrained ones."""
        return [
            *self.student_task.untrained(self.distill).values(),
            *(
                parameter
                for entry in self.distill.values()
                if not entry.active
                for parameter in entry.parameters()
            ),
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
            with isolated_randomness():
                self._tapped.run(inputs, taps)
            teachers = run_teachers(
                self.teachers, list(shown.values()), inputs, {}
            )
            return {
                name: e.trajectories(
                    e.read_student(self.student_taps),
                    e.read_teachers(teachers),
                    inputs.shape[-2:],
                    seed,
                )
                for name, e in shown.items()
            }
        finally:
            self.student_taps.clear()
            self.train(was_training)


def _restore_step(distiller: Distiller, incompatible) -> None:
    """After loading: what is drawn depends on the step of the file."""
    distiller._step = int(distiller.distill.step)
