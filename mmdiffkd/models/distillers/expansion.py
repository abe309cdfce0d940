"""From the name of a method to the entries that it stands for."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from textwrap import wrap

from mmengine.config import Config
from torch import Tensor, nn

from mmdiffkd.utils.naming import did_you_mean
from mmdiffkd.utils.python_text import WIDTH, as_python

from .context import task_of
from .image_shape import find_shape
from .known_heads import WITH_QUERIES
from .known_taps import MEANINGS, taps_of
from .presets import (
    BACKBONE,
    CLASSIFIER,
    DETR,
    METHODS,
    ONE_STAGE,
    OPTIONAL,
    PRESETS,
    SEGMENTOR,
    SMALL,
    TWO_STAGE,
    Preset,
)
from .taps import Taps

_ROLES = 'student', 'teacher'
_STRUCTURES = {'classification': CLASSIFIER, 'segmentation': SEGMENTOR}
_BY_HAND = 'Or write the entries by hand, dict(at=..., loss=...).'
# The side of an image, in pixels, up to which it is small.
_SMALL_SIDE = 64
# As deep as a candidate for a tap is looked for.
_DEPTH = 3


@dataclass(frozen=True)
class Expansion:
    """What a preset stands for in two networks.

    Attributes:
        preset (Preset): The preset.
        structure (str): The structure that it was chosen for.
        entries (dict): The entries by name, as a config has them.
        reasons (dict): By the name of an entry of the preset, what it taps,
            or why it is left out.
    """

    preset: Preset
    structure: str
    entries: dict
    reasons: dict

    def text(self, indent: int = 0) -> str:
        """The entries as Python text, with comments.

        Args:
            indent (int): The columns before ``distill``; with 0 it is
                assigned, else an argument. Defaults to 0.
        """
        inner = indent + 4
        method, _, source, _ = self.preset
        lines = _comment(
            f'The preset {method!r} for a {self.structure}. {source}.', indent
        )
        assigned = 'distill=' if indent else 'distill = '
        lines.append(f'{" " * indent}{assigned}dict(')
        for name in {**self.reasons, **self.entries}:
            if name in self.reasons:
                lines += _comment(f'{self.reasons[name]}.', inner)
            entry = self.entries.get(name)
            if entry is not None:
                value = as_python(entry, inner, len(name) + 2)
                lines.append(f'{" " * inner}{name}={value},')
        return '\n'.join([*lines, f'{" " * indent})'])


def _comment(text: str, indent: int) -> list[str]:
    """A comment of as many lines as it takes."""
    start = ' ' * indent + '# '
    text = text[0].upper() + text[1:]
    return wrap(
        text,
        WIDTH,
        initial_indent=start,
        subsequent_indent=start,
        break_long_words=False,
        break_on_hyphens=False,
    )


def structure_of(network: nn.Module) -> str:
    """What kind of network it is, in the words of :mod:`.presets`.

    Args:
        network (nn.Module): A built model. One of no package is a plain
            backbone, and so is one without a head.
    """
    names = {
        cls.__name__
        for module in network.modules()
        for cls in type(module).__mro__
    }
    if names & {*WITH_QUERIES, 'DIIHead'}:
        return DETR
    task = task_of(network)
    if task == 'detection':
        return TWO_STAGE if hasattr(network, 'roi_head') else ONE_STAGE
    if getattr(network, 'head', network) is None:
        return BACKBONE
    return _STRUCTURES.get(task, BACKBONE)


def is_preset(distill: object) -> bool:
    """Whether ``distill`` names a preset."""
    if isinstance(distill, str):
        return True
    # An entry may have that name, too.
    named = isinstance(distill, Mapping) and distill.get('preset')
    return bool(named) and not isinstance(named, Mapping)


def expand(
    distill: str | Mapping,
    student: nn.Module,
    teacher: nn.Module,
    image_shapes: Sequence[tuple[int, ...]],
) -> Expansion:
    """Find out which entries a preset stands for.

    Args:
        distill (str or Mapping): The name of a method; or a dict with that
            as ``preset``, ``weight`` for all its entries, changes of single
            entries (None leaves one out), and further entries.
        student (nn.Module): The student.
        teacher (nn.Module): The teacher.
        image_shapes (Sequence[tuple[int, ...]]): The shapes that an image
            may have, see :func:`~.image_shape.image_shapes`.

    Raises:
        ValueError: If there is no such preset, or none for these networks,
            or a tap is not known. The message lists what there is.
    """
    if isinstance(distill, str):
        distill = {'preset': distill}
    changes = deepcopy(dict(distill))
    networks = dict(zip(_ROLES, (student, teacher)))
    small = max(image_shapes[0][-2:]) <= _SMALL_SIDE
    preset, structure = _choose(changes.pop('preset'), networks, small)
    weight = changes.pop('weight', 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise ValueError(
            f'`distill.weight` is {weight!r}. Use a number, by which the '
            'weights of the preset are multiplied.'
        )
    known = {role: taps_of(network) for role, network in networks.items()}
    entries, reasons = {}, {}
    for name, given in preset.entries.items():
        change = changes.pop(name, {})
        asked = bool(change)
        if not isinstance(change, Mapping):
            if change is not None:
                entries[name] = change
            continue
        taps, reason = _taps(given['at'], change, known)
        reasons[name] = reason
        if taps is None:
            if given['at'] in OPTIONAL and not asked:
                reasons[name] = f'{name!r} is left out: {reason}'
                continue
            raise ValueError(
                f'`distill.{name}` of the preset {preset.method!r} is left '
                f'without taps: {reason}. Write distill=dict(preset='
                f'{preset.method!r}, {name}=dict(student_at=..., '
                f'teacher_at=...)), or {name}=None without it.'
                + _candidates(networks, known, given['at'], image_shapes)
            )
        entry = taps | {k: v for k, v in given.items() if k != 'at'}
        entry = Config._merge_a_into_b(change, deepcopy(entry))
        own = entry.get('weight', 1.0)
        if weight != 1 and isinstance(own, int | float):
            entry['weight'] = own * weight
        entries[name] = entry
    for name, change in changes.items():
        if change is None:
            raise ValueError(
                f'`distill.{name}` is None, but the preset '
                f'{preset.method!r} has no such entry to leave out. '
                + did_you_mean(name, preset.entries)
            )
    return Expansion(preset, structure, entries | changes, reasons)


def _choose(
    method: object, networks: Mapping[str, nn.Module], small: bool
) -> tuple[Preset, str]:
    """The preset of a method for two networks, and their structure."""
    if method not in METHODS:
        raise ValueError(
            f'`distill` is {method!r}, which is no preset. '
            f'{did_you_mean(method, METHODS)} {_BY_HAND}'
        )
    student, teacher = networks.values()
    tasks = task_of(student), task_of(teacher)
    if None not in tasks and tasks[0] != tasks[1]:
        raise ValueError(
            f'`distill` is {method!r}, but the student '
            f'{type(student).__name__} is a model for {tasks[0]}, and the '
            f'teacher {type(teacher).__name__} is one for {tasks[1]}. Use a '
            f'teacher for {tasks[0]}. {_BY_HAND}'
        )
    structures = structure_of(student), structure_of(teacher)
    structure = BACKBONE if BACKBONE in structures else structures[0]
    if structure == CLASSIFIER and small:
        structure = SMALL
    fitting = {p.method: p for p in PRESETS if structure in p.structures}
    if method not in fitting:
        names = ', '.join(map(repr, fitting))
        raise ValueError(
            f'`distill` is {method!r}, which has no preset for a {structure} '
            f'(student {type(student).__name__}, teacher '
            f'{type(teacher).__name__}). Use one of {names}. {_BY_HAND}'
        )
    return fitting[method], structure


def _taps(
    places: str, change: dict, known: Mapping[str, dict]
) -> tuple[dict | None, str]:
    """The taps of an entry, taken out of its change where it has them.

    None if there are none; and what they are, or why there are none.
    """
    both = change.pop('at', None)
    given = {r: change.pop(f'{r}_at', None) or both for r in _ROLES}
    if all(given.values()):
        return _at(*given.values()), 'the taps of the config'
    reasons = []
    for place in places.split():
        key, _, count = place.partition('[')
        found = {
            role: given[role] or _first(known[role][key], count)
            for role in _ROLES
        }
        lacking = [role for role in _ROLES if not found[role]]
        if lacking:
            who = ' and '.join(f'the {role}' for role in lacking)
            reasons.append(
                f'it is not known where {who} '
                f'{"has" if len(lacking) == 1 else "have"} {key!r}, '
                f'{MEANINGS[key]}'
            )
        elif key in OPTIONAL and (reason := _apart(found)):
            reasons.append(reason)
        else:
            return _at(*found.values()), MEANINGS[key]
    return None, '; '.join(reasons)


def _first(taps: tuple[str, ...] | None, count: str) -> object:
    """The first levels of a pyramid; all where no count is given."""
    if taps is None or not count:
        return taps
    number = int(count.strip('[:]'))
    if taps[0].endswith('[:]'):
        return (taps[0].replace('[:]', f'[:{number}]'),)
    return taps[:number]


def _apart(found: Mapping[str, Sequence[str]]) -> str:
    """Why what predicts boxes, or auxiliary logits, is not compared."""
    student, teacher = found.values()
    if student != teacher:
        names = ' and '.join(', '.join(taps) for taps in (student, teacher))
        return f'{names} may differ in kind'
    if len(student) > 1 and student[0].startswith(('roi_head', 'auxiliary')):
        return f'{", ".join(student)} want an entry each'
    return ''


def _at(student: object, teacher: object) -> dict:
    """Two taps, or lists of taps, as an entry has them."""
    student, teacher = (
        taps if isinstance(taps, str) else [*taps]
        for taps in (student, teacher)
    )
    student, teacher = (
        taps[0] if len(taps) == 1 and isinstance(taps, list) else taps
        for taps in (student, teacher)
    )
    if student == teacher:
        return {'at': student}
    return {'student_at': student, 'teacher_at': teacher}


def _candidates(
    networks: Mapping[str, nn.Module],
    known: Mapping[str, dict],
    places: str,
    image_shapes: Sequence[tuple[int, ...]],
) -> str:
    """What the networks without a tap have, as lines of text."""
    keys = [place.partition('[')[0] for place in places.split()]
    text = ''
    for role, network in networks.items():
        if not any(known[role][key] for key in keys):
            text += f'\nOf two images, modules of the {role} give:'
            for path, shapes in candidates(network, image_shapes).items():
                text += f'\n  {path}: {", ".join(map(str, shapes))}'
    return text


def candidates(
    network: nn.Module, image_shapes: Sequence[tuple[int, ...]]
) -> dict[str, list[tuple[int, ...]]]:
    """What the outer modules of a network give for two images.

    Args:
        network (nn.Module): The network.
        image_shapes (Sequence[tuple[int, ...]]): The shapes to try.

    Returns:
        dict[str, list[tuple[int, ...]]]: The shapes of the tensors, by the
        path of a module.
    """
    found: dict[str, list[tuple[int, ...]]] = {}

    def note(path: str, module: nn.Module, inputs: tuple, output) -> None:
        tensors = output if isinstance(output, list | tuple) else [output]
        shapes = [tuple(x.shape) for x in tensors if isinstance(x, Tensor)]
        if shapes:
            found[path] = shapes

    handles = [
        module.register_forward_hook(partial(note, path))
        for path, module in network.named_modules()
        if path and path.count('.') < _DEPTH
    ]
    heads = [n for n, _ in network.named_children() if n.endswith('head')]
    try:
        for taps in ([], *([head] for head in heads)):
            try:
                tapped = Taps(network, taps, 'student')
                find_shape(network, tapped, image_shapes)
            except ValueError:
                # What ran until then has been noted.
                continue
    finally:
        for handle in handles:
            handle.remove()
    return found
