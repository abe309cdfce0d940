"""From an entry's keys and the shapes of its taps to modules."""

import inspect
from collections.abc import Callable, Mapping, Sequence

import torch

from mmdiffkd.registry import MODELS

from ..part import DistillPart
from .entry import Entry
from .layout import prepared_shapes
from .probe import shapes_behind_necks
from .rois import box_heads_of
from .spec import EntrySpec, PartSpec

Shapes = tuple[torch.Size, torch.Size]
_FEATURES = ('map', 'vector', None)


def build_entry(
    name: str,
    spec: EntrySpec,
    student_shapes: Sequence[torch.Size],
    teacher_shapes: Sequence[torch.Size],
    image: tuple[int, int],
    meta_supply: Mapping[str, Callable[[], object]],
) -> Entry:
    """Build an entry of ``distill``.

    Args:
        name (str): Its name.
        spec (EntrySpec): Its keys.
        student_shapes (Sequence[torch.Size]): Shapes of the student's
            tensors, one a level, with a batch of 2.
        teacher_shapes (Sequence[torch.Size]): The teacher's.
        image (tuple[int, int]): Height and width of the images that these
            shapes belong to.
        meta_supply (Mapping): What a step supplies, as meta tensors, see
            :func:`~.context.meta_supply`.

    Raises:
        ValueError: If the tensors cannot be compared, or a neck or a loss
            cannot be built for them.
    """
    where = f'`distill.{name}`'
    box_heads = box_heads_of(
        name, spec.student_at, spec.teacher_at, spec.teacher_head
    )
    if len(student_shapes) != len(teacher_shapes):
        raise ValueError(
            f'{where}: {spec.texts[0]} gives {len(student_shapes)} tensors '
            f'in the student, {spec.texts[1]} gives {len(teacher_shapes)} in '
            'the teacher. Pick equal numbers with slices, for instance '
            "student_at='neck[0:4]', teacher_at='neck[0:4]'."
        )
    try:
        shapes = [
            prepared_shapes(*pair, image, spec.texts)
            for pair in zip(student_shapes, teacher_shapes)
        ]
    except ValueError as error:
        raise ValueError(f'{where}: {error}') from error
    channels = [(s[1], t[1]) for s, t in shapes]
    if spec.shared and len(set(channels)) > 1:
        raise ValueError(
            f'{where[:-1]}.shared` is True, but the levels differ in channels '
            f'(student, teacher): {channels}. Leave it out.'
        )
    levels = shapes[:1] if spec.shared else shapes
    if spec.neck is None:
        necks = []
    elif spec.neck.cls.joint:
        necks = [_build(spec.neck, shapes, joint=True)]
    else:
        necks = [_build(spec.neck, [level]) for level in levels]
    _check_channels_match(where, spec, channels)
    compared, certain = shapes_behind_necks(
        name, spec, necks, shapes, 2, meta_supply
    )
    losses = [
        _build(spec.loss, [pair], certain=certain)
        for pair in (compared[:1] if spec.shared else compared)
    ]
    for loss, pair in zip(losses, compared):
        try:
            loss.check_shapes(*pair)
        except ValueError as error:
            raise ValueError(f'`{spec.loss.key}`: {error}') from error
    _check_asked(where, spec, [*necks, *losses], box_heads)
    return Entry(name, spec, necks, losses, shapes, box_heads)


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
        raise ValueError(f'`{part.key}`: {error}') from error


def _check_channels_match(
    where: str, spec: EntrySpec, channels: Sequence[tuple[int, int]]
) -> None:
    """Refuse channels that neither neck nor loss brings together."""
    loss, neck = spec.loss.cls, spec.neck and spec.neck.cls
    for student, teacher in channels:
        if student == teacher:
            continue
        if loss.over_classes and not (neck and neck.to_classes):
            raise ValueError(
                f'{where}: {loss.__name__} compares distributions over '
                f'classes, but {spec.texts[0]} has {student} and '
                f'{spec.texts[1]} has {teacher}. Train both networks on the '
                'same classes, or compare features with another loss.'
            )
        if neck is None and not loss.any_channels:
            raise ValueError(
                f'{where} has no neck, and {spec.texts[0]} has {student} '
                f'channels where {spec.texts[1]} has {teacher}. Add for '
                "instance neck=dict(type='DiffKDNeck') or "
                "neck=dict(type='ProjectionNeck')."
            )


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
