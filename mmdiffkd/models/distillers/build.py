"""From the keys of entries and the shapes at their taps to modules."""

import inspect
from collections.abc import Callable, Mapping, Sequence

import torch
from mmengine.logging import print_log

from mmdiffkd.models.losses import DistillLoss
from mmdiffkd.registry import MODELS
from mmdiffkd.utils.naming import left_over_hint

from ..part import DistillPart
from .context import meta_supply, task_of
from .entry import Entry
from .heads import check_labels, check_logits, head_of, multi_label_head
from .layout import Layout, Level, check_pair
from .probe import shapes_behind_necks
from .recognition import Tapped, layout_of
from .rois import box_heads_of
from .spec import EntrySpec, PartSpec
from .tapped_network import TappedNetwork
from .teacher import FrozenTeacher

Shapes = tuple[torch.Size, torch.Size]
_FEATURES = ('map', 'vector', None)
_TASK_OF_ANNOTATIONS = {
    'gt_labels': 'classification',
    'gt_bboxes': 'detection',
}
_ONCE_AN_IMAGE = {
    'gt_labels',
    'sample_idx',
    'gt_bboxes',
    'img_shape',
    'teacher_logits',
}


def build_entries(
    specs: Mapping[str, EntrySpec],
    student: TappedNetwork,
    teachers: Mapping[str, FrozenTeacher],
) -> dict[str, Entry]:
    """Build all entries of ``distill``, and log what they compare.

    Args:
        specs (Mapping[str, EntrySpec]): Their keys by name.
        student (TappedNetwork): The student with its taps.
        teachers (Mapping[str, FrozenTeacher]): The teachers by name, with
            their taps.

    Raises:
        ValueError: See :func:`build_entry`.
    """
    levels = student.levels()
    by_teacher = {name: each.levels() for name, each in teachers.items()}
    entries = {}
    for name, spec in specs.items():
        first, *others = (
            _at(spec.teacher_at, by_teacher[teacher])
            for teacher in spec.teacher
        )
        entries[name] = build_entry(
            name,
            spec,
            _at(spec.student_at, levels),
            first,
            student.input_shape[-2:],
            _meta_supply(spec, teachers, student, 2),
            others,
        )
        for line in entries[name].describe():
            print_log(line, 'current')
    return entries


def _at(taps: Sequence[str], levels: Mapping[str, list]) -> list[Tapped]:
    """The tensors of several taps, in a row."""
    return [tapped for tap in taps for tapped in levels[tap]]


def _meta_supply(
    spec: EntrySpec,
    teachers: Mapping[str, FrozenTeacher],
    student: TappedNetwork,
    batch_size: int,
) -> dict[str, Callable[[], object]]:
    """What a step supplies to an entry, as meta tensors."""
    head = ()
    if spec.teacher_head is not None:
        head = teachers[spec.teacher[0]].head(spec.teacher_head)
    return meta_supply(batch_size, student.input_shape[-2:], *head)


def check_batch(
    entry: Entry,
    teachers: Mapping[str, FrozenTeacher],
    student: TappedNetwork,
    batch_size: int,
) -> None:
    """See that the necks of an entry take a batch, without arithmetic.

    Args:
        entry (Entry): The entry.
        teachers (Mapping[str, FrozenTeacher]): The teachers by name.
        student (TappedNetwork): The student.
        batch_size (int): The number of images.

    Raises:
        ValueError: If a neck does not take its tensors.
    """
    shapes_behind_necks(
        entry.name,
        entry.spec,
        entry.necks,
        entry.shapes,
        batch_size,
        _meta_supply(entry.spec, teachers, student, batch_size),
    )


def build_entry(
    name: str,
    spec: EntrySpec,
    students: Sequence[Tapped],
    teachers: Sequence[Tapped],
    image: tuple[int, int],
    meta_supply: Mapping[str, Callable[[], object]],
    others: Sequence[Sequence[Tapped]] = (),
) -> Entry:
    """Build an entry of ``distill``.

    Args:
        name (str): Its name.
        spec (EntrySpec): Its keys.
        students (Sequence[Tapped]): The student's tensors, one a level.
        teachers (Sequence[Tapped]): The teacher's.
        image (tuple[int, int]): Height and width of the images that they
            belong to.
        meta_supply (Mapping): What a step supplies, as meta tensors, see
            :func:`~.context.meta_supply`.
        others (Sequence[Sequence[Tapped]]): The tensors of each further
            teacher, where the mean of several is compared. Defaults to ().

    Raises:
        ValueError: If the tensors cannot be compared, or a neck or a loss
            cannot be built for them.
    """
    where = f'`distill.{name}`'
    box_heads = box_heads_of(
        name, spec.student_at, spec.teacher_at, spec.teacher_head
    )
    if len(students) != len(teachers):
        raise ValueError(
            f'{where}: {spec.texts[0]} gives {len(students)} tensors, '
            f'{spec.texts[1]} gives {len(teachers)}. Pick equal numbers with '
            "slices, for instance student_at='neck[0:4]', "
            "teacher_at='neck[0:4]'."
        )
    try:
        levels = [
            _level(spec, pair, image) for pair in zip(students, teachers)
        ]
        for tensors in others:
            _check_mean(spec, levels, students, tensors, image)
    except ValueError as error:
        raise ValueError(f'{where}: {error}') from error
    shapes = [level.shapes for level in levels]
    channels = [(s[1], t[1]) for s, t in shapes]
    if spec.shared and len(set(channels)) > 1:
        raise ValueError(
            f'{where[:-1]}.shared` is True, but the levels differ in channels '
            f'(student, teacher): {channels}. Leave it out.'
        )
    if spec.neck is None:
        necks = []
    elif spec.neck.cls.joint:
        necks = [_build(spec.neck, shapes, joint=True)]
    else:
        necks = [
            _build(spec.neck, [pair])
            for pair in (shapes[:1] if spec.shared else shapes)
        ]
    _check_channels_match(where, spec, channels)
    compared, certain = shapes_behind_necks(
        name, spec, necks, shapes, 2, meta_supply
    )
    losses = [
        _build(spec.loss, [pair], certain=certain)
        for pair in (compared[:1] if spec.shared else compared)
    ]
    for tensors in (teachers, *others):
        _check_heads(where, spec, students, tensors, compared, losses)
    for loss, pair in zip(losses, compared):
        try:
            loss.check_shapes(*pair)
        except ValueError as error:
            raise ValueError(f'`{spec.loss.key}`: {error}') from error
    parts = [*necks, *losses]
    _check_asked(where, spec, parts, box_heads)
    if students[0].network is not None:
        several = multi_label_head(students[0].network)
        for part in parts:
            check_labels(where, part, several)
            _check_task(where, part, students[0].network)
    if box_heads is None:
        _check_rows(where, levels, parts)
    return Entry(name, spec, necks, losses, levels, box_heads)


def _level(
    spec: EntrySpec, pair: tuple[Tapped, Tapped], image: tuple[int, int]
) -> Level:
    """How the two tensors of a level are laid out and compared."""
    student, teacher = pair
    images = image, teacher.image or image
    layouts = (
        layout_of(
            student, image, spec.student_layout, spec.student_prefix_tokens
        ),
        layout_of(
            teacher,
            images[1],
            spec.teacher_layout,
            spec.teacher_prefix_tokens,
        ),
    )
    if spec.compares_logits and all(x.axes == 'NLC' for x in layouts):
        # A distribution each: they need no grid.
        layouts = tuple(Layout('NC', x.prefix_tokens) for x in layouts)
    shapes = tuple(
        layout.arranged(tapped.shape, size)
        for layout, tapped, size in zip(layouts, pair, images)
    )
    check_pair(*shapes, spec.texts)
    names = student.name, teacher.name
    return Level(names, layouts, shapes, image, teacher.image)


def _check_mean(
    spec: EntrySpec,
    levels: Sequence[Level],
    students: Sequence[Tapped],
    teachers: Sequence[Tapped],
    image: tuple[int, int],
) -> None:
    """Refuse a teacher of which the mean with the first makes no sense."""
    if len(teachers) != len(levels):
        raise ValueError(
            f'the mean of {" and ".join(map(repr, spec.teacher))} is '
            f'compared, but {spec.texts[1]} gives {len(levels)} tensors in '
            f'one of them and {len(teachers)} in another. Pick equal numbers '
            'with a slice, or write an entry for each.'
        )
    found = [_level(spec, pair, image) for pair in zip(students, teachers)]
    sides = [
        [
            (x.layouts[1], tuple(x.shapes[1][1:]), x.teacher_image is None)
            for x in each
        ]
        for each in (levels, found)
    ]
    if sides[0] == sides[1]:
        return
    texts = (
        ', '.join(
            f'{shape} ({layout.remark or layout.axes}'
            + (')' if follows else ', images of one size)')
            for layout, shape, follows in side
        )
        for side in sides
    )
    raise ValueError(
        f'the mean of {" and ".join(map(repr, spec.teacher))} at '
        f'{" + ".join(map(repr, spec.teacher_at))} is compared, but they '
        f'give {" and ".join(texts)}. Choose teachers that give the same '
        'there, or write an entry for each.'
    )


def _build(
    part: PartSpec,
    shapes: Sequence[Shapes],
    joint: bool = False,
    certain: bool = True,
) -> DistillPart:
    """A neck or a loss, with what can be read off the shapes filled in."""
    accepted = inspect.signature(part.cls).parameters
    found = {'feature': 'map' if len(shapes[0][1]) == 4 else 'vector'}
    for side, role in enumerate(('student', 'teacher')):
        sides = [pair[side] for pair in shapes]
        sizes = [tuple(shape[2:]) or None for shape in sides]
        values = {
            f'{role}_channels': [shape[1] for shape in sides],
            f'{role}_size': sizes,
        }
        for name, value in values.items():
            found[name] = value if joint else value[0]
    arguments = dict(part.arguments)
    for name, value in found.items():
        if name not in accepted:
            continue
        # Somebody else's class may mean another thing by this name.
        if name == 'feature' and accepted[name].default not in _FEATURES:
            continue
        given = arguments.get(name)
        if given is None:
            arguments[name] = value
        elif certain and given != value and not name.endswith('size'):
            what = f'{value}s' if name == 'feature' else f'{value} channels'
            raise ValueError(
                f'`{part.key}.{name}` is {given!r}, but {what} are compared '
                'there. Leave it out: it is read off the networks.'
            )
    try:
        return MODELS.build(
            {'_scope_': 'mmdiffkd', **arguments, 'type': part.cls}
        )
    except (TypeError, ValueError) as error:
        raise ValueError(
            f'`{part.key}`: {error}{left_over_hint(error)}'
        ) from error


def _check_channels_match(
    where: str, spec: EntrySpec, channels: Sequence[tuple[int, int]]
) -> None:
    """Refuse channels that neither neck nor loss brings together."""
    loss, neck = spec.loss.cls, spec.neck
    for student, teacher in channels:
        if student == teacher:
            continue
        if spec.compares_logits:
            of, same = 'bins', 'with the same bins (`reg_max`)'
            if loss.over_classes:
                of, same = 'classes', 'on the same classes'
            raise ValueError(
                f'{where}: {loss.__name__} compares distributions over {of}, '
                f'but {spec.texts[0]} has {student} and {spec.texts[1]} has '
                f'{teacher}. Train both networks {same}, or compare features '
                'with another loss.'
            )
        if neck is None and not loss.any_channels:
            raise ValueError(
                f'{where} has no neck, and {spec.texts[0]} has {student} '
                f'channels where {spec.texts[1]} has {teacher}. Add for '
                "instance neck=dict(type='DiffKDNeck') or "
                "neck=dict(type='ProjectionNeck')."
            )


def _check_heads(
    where: str,
    spec: EntrySpec,
    students: Sequence[Tapped],
    teachers: Sequence[Tapped],
    compared: Sequence[Shapes],
    losses: Sequence[DistillLoss],
) -> None:
    """Refuse a loss that reads the logits of known heads wrongly."""
    loss = losses[0]
    if spec.activation is not None and loss.activation is None:
        raise ValueError(
            f'{where[:-1]}.activation` is {spec.activation!r}, but '
            f'{type(loss).__name__} reads no logits. Leave it out.'
        )
    levels = []
    for student, teacher, shapes in zip(students, teachers, compared):
        taps = student.tap, teacher.tap
        if spec.neck is not None and not spec.compares_logits:
            # The neck makes logits with the teacher's head.
            taps = None, spec.teacher_head
        heads = tuple(
            None
            if tap is None or tapped.network is None
            else head_of(tapped.network, tap, shape[1], tapped is student)
            for tapped, tap, shape in zip((student, teacher), taps, shapes)
        )
        levels.append((student.name, heads))
    check_logits(where, loss, levels, spec.activation)


def _check_asked(
    where: str,
    spec: EntrySpec,
    parts: Sequence[DistillPart],
    box_heads: tuple[str, str] | None,
) -> None:
    """Refuse a part that needs RoI labels or a head which the entry lacks."""
    for part in parts:
        name = type(part).__name__
        if box_heads is None and 'roi_labels' in part.asks_for:
            raise ValueError(
                f'{where} has no tap in a RoI head, of whose boxes its {name} '
                "asks the classes (`roi_labels`). Tap 'roi_head.bbox_head."
                "fc_reg', or use another neck or loss."
            )
        if spec.teacher_head is None and {
            'teacher_head',
            'teacher_logits',
        } & set(part.asks_for):
            raise ValueError(
                f'{where} has no `teacher_head`, which its {name} asks for. '
                "Name the teacher's classifier, for instance teacher_head="
                "'head.fc'."
            )


def _check_task(
    where: str, part: DistillPart, student: torch.nn.Module
) -> None:
    """Refuse a part that asks for annotations of another task."""
    task = task_of(student)
    for name, needed in _TASK_OF_ANNOTATIONS.items():
        if task is not None and task != needed and name in part.asks_for:
            raise ValueError(
                f'{where}: {type(part).__name__} asks for `{name}`, which '
                f'data for {needed} have alone, but the student '
                f'{type(student).__name__} is a model for {task}. Use '
                'another loss or neck, or an option of it that needs none.'
            )


def _check_rows(
    where: str, levels: Sequence[Level], parts: Sequence[DistillPart]
) -> None:
    """Refuse to compare several rows an image with what images have once."""
    rows = max(level.shapes[0][0] // 2 for level in levels)
    for part in parts:
        asked = sorted({*part.asks_for} & _ONCE_AN_IMAGE)
        if rows > 1 and asked:
            raise ValueError(
                f'{where}: {type(part).__name__} asks for {", ".join(asked)}, '
                f'one an image, but {rows} rows an image are compared. Use a '
                'loss without them, KLDivergence for instance, or tap one '
                'vector an image.'
            )
