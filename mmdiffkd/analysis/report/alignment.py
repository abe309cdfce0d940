"""How alike student and teacher are, at the taps and stage by stage."""

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn

from mmdiffkd.models.distillers import Entry, FrozenTeacher
from mmdiffkd.models.distillers.forward import has_modes
from mmdiffkd.models.distillers.known_taps import taps_of
from mmdiffkd.models.distillers.layout import Layout
from mmdiffkd.models.distillers.recognition import Tapped, layout_of
from mmdiffkd.models.distillers.taps import SilentTap, Taps

from ..representations import pool
from ..similarity import LinearCKA


class Alignment:
    """Linear CKA of the features of a student and of its teachers.

    The levels of each entry are compared, and every stage of the student
    with every stage of a teacher. Maps are averaged over positions.

    Args:
        student (nn.Module): The student.
        teachers (Mapping[str, FrozenTeacher]): The teachers, by name.
        entries (Mapping[str, Entry]): The entries, by name.

    Attributes:
        left_out (dict[str, str]): What is not compared, and why.
    """

    def __init__(
        self,
        student: nn.Module,
        teachers: Mapping[str, FrozenTeacher],
        entries: Mapping[str, Entry],
    ) -> None:
        networks = {'student': student}
        for teacher in teachers.values():
            if teacher.input_size is None and has_modes(teacher.network):
                networks[teacher.label] = teacher.network
        self.left_out: dict[str, str] = {}
        self._entries: dict[str, tuple[Entry, str]] = {}
        taps = defaultdict(dict)
        for name, entry in entries.items():
            label = teachers[entry.teachers[0]].label
            reason = _why_not(entry, label in networks)
            if reason:
                self.left_out[f'the entry {name}'] = reason
                continue
            self._entries[name] = entry, label
            taps['student'] |= dict.fromkeys(entry.student_at)
            taps[label] |= dict.fromkeys(entry.teacher_at)
        self._taps = {
            label: Taps(network, taps[label], label)
            for label, network in networks.items()
        }
        if len(networks) == 1:
            networks = {}
        self._stages = {
            label: _Stages(network, label)
            for label, network in networks.items()
        }
        self._levels = defaultdict(LinearCKA)
        self._pairs = defaultdict(LinearCKA)

    def reads(self, label: str) -> bool:
        """Whether anything is read in a network."""
        taps = [self._taps.get(label)]
        taps += [self._stages[label].taps] if label in self._stages else []
        return any(each is not None and each.taps for each in taps)

    @contextlib.contextmanager
    def record(self, label: str) -> Iterator[None]:
        """Record what the network of a name yields inside the block."""
        with contextlib.ExitStack() as stack:
            if label in self._taps:
                stack.enter_context(self._taps[label].record())
            if label in self._stages:
                stack.enter_context(self._stages[label].taps.record())
            yield

    def update(self, images: Mapping[str, Sequence[int]]) -> None:
        """Take in what was recorded of a batch, and forget it.

        Args:
            images (Mapping[str, Sequence[int]]): Height and width of the
                images that each network has seen.
        """
        for name, (entry, label) in list(self._entries.items()):
            try:
                self._compare(name, entry, label, images)
            except SilentTap:
                self.left_out[f'the entry {name}'] = (
                    'its tap yields nothing in a prediction. Some modules, '
                    'auxiliary heads for instance, run in training only.'
                )
                del self._entries[name]
        for taps in self._taps.values():
            taps.clear()
        stages = {
            label: each.read(images[label])
            for label, each in self._stages.items()
            if label in images
        }
        for student, ours in stages.get('student', {}).items():
            for label in stages.keys() - {'student'}:
                for teacher, theirs in stages[label].items():
                    self._pairs[label, student, teacher].update(ours, theirs)

    def _compare(
        self,
        name: str,
        entry: Entry,
        label: str,
        images: Mapping[str, Sequence[int]],
    ) -> None:
        """Take in what the taps of an entry yielded."""
        sides = [
            [t for tap in at for t in self._taps[role].read(tap)]
            for role, at in (
                ('student', entry.student_at),
                (label, entry.teacher_at),
            )
        ]
        levels = zip(entry.levels, *sides, strict=True)
        for number, (level, *pair) in enumerate(levels):
            self._levels[name, number].update(
                *(
                    pool(layout.arrange(tensor, images[role]))
                    for layout, tensor, role in zip(
                        level.layouts, pair, ('student', label)
                    )
                )
            )

    def at_taps(self) -> list[dict]:
        """The alignment at each level of each entry.

        Returns:
            list[dict]: ``entry``, ``student`` and ``teacher`` (the tensors)
            and ``value``, None if a feature is constant.
        """
        return [
            dict(
                entry=name,
                student=level.names[0],
                teacher=level.names[1],
                value=_value(self._levels[name, number]),
            )
            for name, (entry, _) in self._entries.items()
            for number, level in enumerate(entry.levels)
        ]

    def over_stages(self) -> list[dict]:
        """A heat map for each teacher, see :func:`~.page.render`."""
        plots = []
        for label in dict.fromkeys(key[0] for key in self._pairs):
            keys = [key for key in self._pairs if key[0] == label]
            rows = list(dict.fromkeys(key[1] for key in keys))
            columns = list(dict.fromkeys(key[2] for key in keys))
            values = [
                [_value(self._pairs[label, row, column]) for column in columns]
                for row in rows
            ]
            plots.append(
                dict(
                    kind='heatmap',
                    key=f'student and {label}',
                    titles=(label, 'student'),
                    rows=rows,
                    columns=columns,
                    values=values,
                    texts=[
                        ['constant' if v is None else f'{v:.3f}' for v in row]
                        for row in values
                    ],
                    largest=1,
                )
            )
        for label, each in self._stages.items():
            if each.unread:
                names = ', '.join(each.unread)
                self.left_out[f'{names} of the {label}'] = (
                    'how it is laid out is not certain.'
                )
            elif not each.taps.taps:
                self.left_out[f'the stages of the {label}'] = (
                    'they are not in the table of taps.'
                )
        return plots


def stages_of(network: nn.Module) -> list[str]:
    """The taps of a backbone's stages, and of the levels of a neck.

    Args:
        network (nn.Module): A model of mmpretrain, mmdet or mmseg.

    Returns:
        list[str]: Taps; none of a network that the table of taps lacks.
    """
    # Of the whole network, the levels of the neck stand for the stages.
    backbone = nn.Module()
    for name, part in network.named_children():
        if name in ('backbone', 'model'):
            backbone.add_module(name, part)
    found = (taps_of(each)['pyramid'] for each in (backbone, network))
    return list(dict.fromkeys(tap for taps in found for tap in taps or ()))


class _Stages:
    """The stages of a network as vectors, one an image."""

    def __init__(self, network: nn.Module, label: str) -> None:
        self.network, self.label = network, label
        self.taps = Taps(network, stages_of(network), label)
        self.layouts: dict[str, Layout] = {}
        self.unread: dict[str, None] = {}

    def read(self, image: Sequence[int]) -> dict[str, Tensor]:
        """What was recorded, (B, C) by the name of the stage."""
        self.taps.remember_calls()
        vectors = {}
        for tap in self.taps.taps:
            tensors = self.taps.read(tap)
            for name, tensor in zip(self.taps.names(tap), tensors):
                try:
                    layout = self._layout(tap, name, tensor, image)
                    vectors[name] = pool(layout.arrange(tensor, image))
                except ValueError:
                    self.unread[name] = None
        self.taps.clear()
        return vectors

    def _layout(
        self, tap: str, name: str, tensor: Tensor, image: Sequence[int]
    ) -> Layout:
        if name not in self.layouts:
            # Layouts are recognised in a batch of two.
            shape = tensor[:1].expand(2, *tensor.shape[1:]).shape
            tapped = Tapped(tap, name, shape, self.label, self.network)
            self.layouts[name] = layout_of(tapped, tuple(image))
        return self.layouts[name]


def _why_not(entry: Entry, has_network: bool) -> str | None:
    """Why an entry is not compared; None if it is."""
    if len(entry.teachers) > 1:
        return 'it compares the mean of several teachers.'
    if not has_network:
        return (
            'its teacher has an `input_size` or is no model of an OpenMMLab '
            'config.'
        )
    if entry.box_heads is not None:
        return 'it compares boxes, which the two networks choose.'
    return None


def _value(alignment: LinearCKA) -> float | None:
    """The alignment, None if a feature is constant."""
    value = alignment.compute()
    return None if value != value else value
