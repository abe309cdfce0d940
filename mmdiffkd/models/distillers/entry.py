"""An entry of ``distill`` at work: align, compare, weigh."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from logging import FileHandler

import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn

from mmdiffkd.models.losses import DistillLoss
from mmdiffkd.models.necks import Aligned, DistillNeck
from mmdiffkd.utils.randomness import derive_seed

from ..part import DistillPart
from .layout import Level
from .scheduled import Scheduled
from .spec import ONLY_TEACHER, EntrySpec
from .taps import Taps


def touch(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """Scalars of 0 with a gradient of 0 for each parameter, as DDP wants.

    Nothing is computed from the parameters' values, so that the result is 0
    whatever they are.

    Args:
        parameters (Iterable[nn.Parameter]): The parameters.
    """
    return [p.flatten()[:0].sum() for p in parameters]


class Entry(BaseModule, Scheduled):
    """Taps, necks, losses and a weight.

    It is made by :func:`~.build.build_entry`, which has checked all of it.

    Args:
        name (str): The entry's name.
        spec (EntrySpec): Its keys.
        necks (Sequence[DistillNeck]): None; one for all levels; or one a
            level.
        losses (Sequence[DistillLoss]): One for all levels, or one for each
            pair of tensors that the necks hand on.
        levels (Sequence[Level]): What is compared at each level.
        box_heads (tuple[str, str], optional): The student's and the
            teacher's box head, where the taps are in a RoI head. Defaults to
            None.
    """

    def __init__(
        self,
        name: str,
        spec: EntrySpec,
        necks: Sequence[DistillNeck],
        losses: Sequence[DistillLoss],
        levels: Sequence[Level],
        box_heads: tuple[str, str] | None = None,
    ) -> None:
        super().__init__()
        Scheduled.__init__(self, spec.weight, spec.schedule)
        self.name = name
        self.spec = spec
        #: The names of its teachers, of whose tensors the mean is compared.
        self.teachers = spec.teacher
        self.student_at = spec.student_at
        self.teacher_at = spec.teacher_at
        self.teacher_head = spec.teacher_head
        self.necks = ModuleList(necks)
        self.losses = ModuleList(losses)
        self.levels = levels
        self.box_heads = box_heads
        # All necks are of one kind, and so are all losses.
        neck, loss = (necks[0] if necks else DistillNeck()), losses[0]
        self._joint = neck.joint
        self._resizes = neck.joint or neck.resizes
        self._asked = neck.asks_for, loss.asks_for
        self._draws = neck.overrides('draw'), loss.overrides('draw')

    @property
    def parts(self) -> list[DistillPart]:
        """Its necks and losses."""
        return [*self.necks, *self.losses]

    @property
    def shapes(self) -> list[tuple[torch.Size, torch.Size]]:
        """The student's and the teacher's shape a level, with a batch of 2.

        Tokens are maps.
        """
        return [level.shapes for level in self.levels]

    @property
    def pictured(self) -> bool:
        """Whether its necks show their stages as pictures."""
        return (
            len(self.necks) > 0
            and self.box_heads is None
            and self.necks[0].overrides('trajectory')
            and len(self.shapes[0][1]) == 4
        )

    def read_student(
        self, taps: Taps, views: Sequence[int] = ()
    ) -> list[Tensor]:
        """The student's tensors of this step, one a level.

        Args:
            taps (Taps): The student's taps, recorded.
            views (Sequence[int]): When the student ran, see
                :meth:`~.taps.Taps.read`. Defaults to ().

        Raises:
            ValueError: If one of them has no gradient.
        """
        tensors = [t for tap in self.student_at for t in taps.read(tap, views)]
        if torch.is_grad_enabled() and not all(
            tensor.requires_grad for tensor in tensors
        ):
            raise ValueError(
                f'`distill.{self.name}`: what {self.student_at} returns has '
                'no gradient, so that distillation would not train the '
                'student. Tap a module behind the frozen stages; under '
                'activation checkpointing (`with_cp=True`) tap a whole '
                "block, for instance 'backbone.layer3.1', not a part of one."
            )
        return tensors

    def read_teachers(
        self, tensors: Mapping[str, Mapping[str, list[Tensor]]]
    ) -> list[Tensor]:
        """The teacher's tensors of this step, one a level.

        Of several teachers it is the mean.

        Args:
            tensors (Mapping): What the taps yield, by teacher and tap.

        Raises:
            ValueError: If several teachers give other shapes.
        """
        each = [
            [t for tap in self.teacher_at for t in tensors[name][tap]]
            for name in self.teachers
        ]
        if len(each) == 1:
            return each[0]
        levels = list(zip(*each))
        for level in levels:
            shapes = [tuple(tensor.shape) for tensor in level]
            if len({*shapes}) > 1:
                raise ValueError(
                    f'`distill.{self.name}.teacher` is {list(self.teachers)}, '
                    f'whose tensors have the shapes {shapes} in this step, '
                    'and have no mean. Give each of these teachers an '
                    '`input_size`, or write an entry for each.'
                )
        return [torch.stack(level).mean(0) for level in levels]

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
        scale = self.scale

        def add(key: str, value: Tensor) -> None:
            losses[key] = losses.get(key, 0) + value * scale

        given_to_neck, given_to_loss = (
            {name: supply[name]() for name in names} for names in self._asked
        )
        calls = self._calls(students, teachers, image)
        drawn = self._draw_for_necks(calls, seed)
        level = 0
        for (neck, tensors), random in zip(calls, drawn):
            aligned = Aligned(*tensors, {}, {})
            if neck is not None:
                aligned = neck(*tensors, **given_to_neck, **random)
            pairs = [(aligned.student, aligned.teacher)]
            if self._joint:
                pairs = list(zip(aligned.student, aligned.teacher))
            for pair in pairs:
                loss = self.losses[level % len(self.losses)]
                random = {}
                if self._draws[1]:
                    random = self._draw(loss, pair, (*seed, level, 'loss'))
                add('loss_kd', loss(*pair, **given_to_loss, **random))
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
    ) -> list[tuple[DistillNeck | None, tuple]]:
        """Each neck with what it is called on; None for no neck."""
        pairs = [
            level.prepare(*pair, image, not self._resizes)
            for level, *pair in zip(self.levels, students, teachers)
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
        self, calls: list[tuple[DistillNeck | None, tuple]], seed: tuple
    ) -> list[dict[str, Tensor]]:
        """Draw for all necks in one call, so that a graph breaks once."""
        return [
            self._draw(neck, tensors, (*seed, level)) if self._draws[0] else {}
            for level, (neck, tensors) in enumerate(calls)
        ]

    @torch.compiler.disable
    def _draw(
        self, part: DistillPart, tensors: tuple, seed: tuple
    ) -> dict[str, Tensor]:
        """Draw from a generator that is seeded with entry, step and level."""
        first = tensors[0] if isinstance(tensors[0], Tensor) else tensors[0][0]
        generator = torch.Generator(first.device)
        generator.manual_seed(derive_seed(self.name, *seed))
        return part.draw(*tensors, generator)

    def trajectories(
        self,
        students: list[Tensor],
        teachers: list[Tensor],
        image: Sequence[int],
        seed: tuple,
    ) -> list[list[tuple[str, Tensor]]]:
        """Every stage of the student's maps, for pictures, a list a level.

        Args:
            students (list[Tensor]): The student's tensors, one a level.
            teachers (list[Tensor]): The teacher's.
            image (Sequence[int]): Height and width of the input.
            seed (tuple): What the noise depends on, besides the entry.

        Returns:
            list[list[tuple[str, Tensor]]]: (caption, map) pairs a level.
        """
        shown = []
        for level, (neck, pair) in enumerate(
            self._calls(students, teachers, image)
        ):
            noise = self._draw(neck, pair, (*seed, level))['noise']
            shown.append(neck.trajectory(*pair, noise))
        return shown

    def idle(self, touched: Sequence[Tensor] = ()) -> dict[str, Tensor]:
        """A loss of 0 that touches every parameter, as DDP wants.

        Args:
            touched (Sequence[Tensor]): Scalars of 0 to add. Defaults to ().
        """
        touched = [*touched, *touch(self.parameters())]
        return {'loss_kd': sum(touched)} if touched else {}

    def describe(self) -> list[str]:
        """What is compared, one line a level."""
        lines = []
        for number, level in enumerate(self.levels):
            student, teacher = level.shapes
            parts = [f'loss {type(self.losses[0]).__name__}']
            if self.necks:
                neck = self.necks[number % len(self.necks)]
                count = sum(p.numel() for p in neck.parameters())
                parts.insert(0, f'{type(neck).__name__}, {count:,} parameters')
            if student[2:] != teacher[2:] and not self._resizes:
                parts.append("student's map resized")
            sides = (
                f'{role} {name} {tuple(shape[1:])}'
                + (f' ({layout.remark})' if layout.remark else '')
                for role, name, shape, layout in zip(
                    ('student', 'teacher'),
                    level.names,
                    level.shapes,
                    level.layouts,
                )
            )
            if self.teachers != (ONLY_TEACHER,):
                parts.append(f'teacher {" + ".join(self.teachers)}')
            lines.append(
                f'distill.{self.name}: '
                + ' -> '.join(sides)
                + '; '
                + '; '.join(parts)
            )
        return lines

    def _dump_init_info(self) -> None:
        """Say how parameters began in a log file, never on the console."""
        handlers = MMLogger.get_current_instance().handlers
        if any(isinstance(handler, FileHandler) for handler in handlers):
            super()._dump_init_info()
