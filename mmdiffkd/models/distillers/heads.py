"""What a tapped tensor of logits is, and which losses may compare it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch import nn
from torch.nn.modules.conv import _ConvNd

from mmdiffkd.models.losses import DistillLoss

from ..part import DistillPart
from .known_heads import (
    ACTIVATIONS,
    CHANGING,
    DECISIVE,
    RULES,
    WITH_QUERIES,
    WRAPPERS,
    Rule,
)
from .taps import Tap


@dataclass(frozen=True)
class Head:
    """What a head's tensor holds.

    Attributes:
        name (str): The head's class.
        kind (str): ``'classes'``; ``'bins'``, for each side of a box a
            distribution over its distance; ``'other'``, such as box
            offsets; ``'unclear'``, one of several of these; or
            ``'changing'``, something else in training than otherwise.
        activation (str or None): ``'softmax'`` or ``'sigmoid'``, with which
            the head is trained; None where it is neither.
        groups (int): Distributions side by side on the channels: one for
            each side of a box, or for each anchor. Defaults to 1.
        size (int or None): Channels of one distribution under a softmax.
            Defaults to None.
        several_labels (bool): Whether an image may have several labels.
            Defaults to False.
        words (str): What an unclear or changing tensor is. Defaults to ''.
        cure (str): What to tap in its place. Defaults to ''.
    """

    name: str
    kind: str
    activation: str | None
    groups: int = 1
    size: int | None = None
    several_labels: bool = False
    words: str = ''
    cure: str = ''

    def __str__(self) -> str:
        several = ', several labels an image' if self.several_labels else ''
        return f'{self.name}: {self.what}{several}'

    @property
    def what(self) -> str:
        """What it holds, in words."""
        if self.activation is None:
            others = 'values such as box offsets or parts of a sum'
            return self.words or f'{others}, no plain logits'
        if self.activation == 'sigmoid':
            return 'a sigmoid for each channel'
        unit = 'bins' if self.kind == 'bins' else 'classes'
        if self.groups == 1:
            return f'a softmax over {self.size} {unit}'
        return f'{self.groups} distributions of {self.size} {unit}'


_ROLES = 'student', 'teacher'
_TAKES = {
    'softmax': 'a softmax over the channels',
    'sigmoid': 'a sigmoid for each channel',
}
_CURES = {
    'softmax': "dict(type='KLDivergence')",
    'sigmoid': "dict(type='BinaryKLDivergence')",
}
_ON_VALUES = (
    "Use a loss on values, for instance loss=dict(type='SmoothL1Loss') or "
    "loss=dict(type='MSELoss')."
)


def head_of(
    network: nn.Module, tap: str, channels: int, training: bool = False
) -> Head | None:
    """What the tensor of a tap is, if it is what a known head returns.

    Args:
        network (nn.Module): The student or the teacher.
        tap (str): The tap, as written in the config.
        channels (int): The tensor's channels.
        training (bool): Whether the network runs in training, as the student
            does. Defaults to False.

    Returns:
        Head | None: None where nothing is certain: a feature; a head that
        is not of mmpretrain, mmdet or mmseg, or that overrides how its
        outputs or its loss are made.
    """
    tap = Tap(tap)
    if tap.reads_input:
        return None
    if _is_a(network, WRAPPERS) and _is_stock(network):
        return _in_wrapper(network, tap.path, channels)
    parts = tap.path.split('.')
    for depth in range(len(parts), 0, -1):
        head = network.get_submodule('.'.join(parts[:depth]))
        for rule in RULES:
            if _is_a(head, rule.bases):
                if not _is_stock(head):
                    return None
                if depth == len(parts):
                    return _whole(network, tap.path, rule, channels, training)
                return _layer(head, rule, '.'.join(parts[depth:]), channels)
    return None


def multi_label_head(network: nn.Module) -> Head | None:
    """The head of a network that takes several labels an image, if any.

    Args:
        network (nn.Module): The student.
    """
    for module in network.modules():
        # With a softmax it is a head for one label, mixed by Mixup.
        if _is_a(module, ('MultiTaskHead',)) or (
            _is_a(module, ('MultiLabelClsHead',))
            and _activations(module.loss_module) == {'sigmoid'}
        ):
            name = type(module).__name__
            return Head(name, 'other', None, several_labels=True)
    return None


def check_logits(
    where: str,
    loss: DistillLoss,
    levels: Sequence[tuple[str, tuple[Head | None, Head | None]]],
    said: str | None,
) -> None:
    """Refuse a loss that reads logits as what they are not.

    Args:
        where (str): The entry, for messages.
        loss (DistillLoss): The loss; one whose ``activation`` is None takes
            all but what changes in training.
        levels (Sequence[tuple[str, tuple[Head | None, Head | None]]]): For
            each level its name, and what the student's and the teacher's
            tensors are; what is None is not checked.
        said (str, optional): The activation that the entry states for all,
            in place of what their heads were trained with.

    Raises:
        ValueError: If the loss takes another activation or other groups, or
            the tensors are no logits or may be something else, or student
            and teacher differ.
    """
    wanted, name = loss.activation, type(loss).__name__
    if wanted and said not in (None, wanted):
        raise ValueError(
            f'{where[:-1]}.activation` is {said!r}, but {name} takes '
            f'{_TAKES[wanted]}. Use loss={_CURES[said]}, or leave '
            '`activation` out.'
        )
    for level, heads in levels:
        for role, head in zip(_ROLES, heads):
            if head and head.kind == 'changing':
                raise ValueError(
                    f"{where} at {level}: {name} cannot compare the {role}'s "
                    f'tensor ({head}). {head.cure}'
                )
    if wanted is None:
        return
    certain = []
    for level, heads in levels:
        known = [(r, h) for r, h in zip(_ROLES, heads) if h]
        if said is not None:
            known = [(r, h) for r, h in known if h.activation == said]
        certain.append((level, known))
    apart = _apart(certain)
    for level, known in certain:
        at = f'{where} at {level}' if len(levels) > 1 else where
        for role, head in known:
            if head.activation is None:
                what = f"{role}'s tensor is something else"
                if head.kind == 'unclear':
                    what = f"{role}'s tensor may be something else"
                raise ValueError(
                    f'{at}: {name} compares logits, but the {what} ({head}). '
                    f'{head.cure or apart or _ON_VALUES} If it holds logits '
                    f'all the same, write activation={wanted!r} in the entry.'
                )
        if len({head.activation for _, head in known}) == 2:
            raise ValueError(
                f'{at}: the logits of student and teacher are of two kinds '
                f'({known[0][1]}; {known[1][1]}). Use a teacher whose head is '
                f"of the student's kind. {_otherwise(wanted)}"
            )
        for role, head in known:
            cure = apart or f'Use loss={_cure(head)}.'
            if head.activation != wanted:
                raise ValueError(
                    f"{at}: {name} takes {_TAKES[wanted]}, but the {role}'s "
                    f'head gives something else ({head}). {cure} '
                    f'{_otherwise(wanted)}'
                )
            if wanted == 'softmax' and head.groups != loss.groups:
                takes = f'{loss.groups} distributions side by side'
                if loss.groups == 1:
                    takes = 'one distribution over all channels'
                raise ValueError(
                    f"{at}: {name} takes {takes}, but the {role}'s head "
                    f'gives another number ({head}). {cure}'
                )


def check_labels(where: str, part: DistillPart, head: Head | None) -> None:
    """Refuse a part that asks for one class an image where there are several.

    Args:
        where (str): The entry, for messages.
        part (DistillPart): A neck or a loss.
        head (Head, optional): See :func:`multi_label_head`.

    Raises:
        ValueError: If the part asks for ``gt_labels``, and the head takes
            several labels an image.
    """
    if head and head.several_labels and 'gt_labels' in part.asks_for:
        raise ValueError(
            f'{where}: {type(part).__name__} asks for `gt_labels`, one class '
            f"an image, but the student's {head.name} takes several labels "
            'an image. Use a loss or neck without labels, for instance '
            "loss=dict(type='BinaryKLDivergence') on the logits."
        )


def _otherwise(wanted: str) -> str:
    return (
        f'If the logits are meant for {_TAKES[wanted]} all the same, write '
        f'activation={wanted!r} in the entry.'
    )


def _cure(head: Head) -> str:
    """The loss for what a head gives."""
    if head.activation is None:
        return "dict(type='SmoothL1Loss')"
    if head.groups == 1:
        return _CURES[head.activation]
    grouped = f"dict(type='KLDivergence', groups={head.groups})"
    if head.kind == 'bins' and head.groups == 4:
        return f"dict(type='LDLoss') or loss={grouped}"
    return grouped


def _apart(levels: Sequence[tuple[str, Sequence[tuple[str, Head]]]]) -> str:
    """The cure where no one loss suits all levels."""
    losses, activations = {}, set()
    for level, known in levels:
        for _, head in known:
            if head.kind == 'unclear':
                continue
            losses.setdefault(_cure(head), {})[level] = None
            activations.add(head.activation)
    if len(losses) < 2 or len(levels) < 2:
        return ''
    what = 'number of groups' if len(activations) == 1 else 'kind of tensor'
    each = '; '.join(f'loss={x} at {", ".join(y)}' for x, y in losses.items())
    return f'Write an entry for each {what}: {each}.'


def _is_a(module: nn.Module, names: tuple[str, ...]) -> bool:
    """Whether a class or a base class has one of these names.

    None of the packages has to be installed.
    """
    return any(cls.__name__ in names for cls in type(module).__mro__)


def _is_stock(head: nn.Module) -> bool:
    """Whether outputs and loss are made by one of the three packages."""
    methods = (getattr(type(head), name, None) for name in DECISIVE)
    return all(
        method.__module__.split('.')[0] in ('mmpretrain', 'mmdet', 'mmseg')
        for method in methods
        if method is not None
    )


def _whole(
    network: nn.Module, path: str, rule: Rule, channels: int, training: bool
) -> Head | None:
    """What a head returns, by channels where it returns several things."""
    head = network.get_submodule(path)
    own, by = type(head).__name__, type(head).forward.__qualname__
    if change := CHANGING.get((by.split('.')[0], training)):
        words, cure = change
        return Head(own, 'changing', None, words=words, cure=cure.format(path))
    if rule.loss == 'loss_module':
        # This loss is given just what the head returns.
        return _logits(head, rule, channels)
    if _is_a(head, WITH_QUERIES):
        return None
    if getattr(getattr(head, rule.loss, None), 'activated', False):
        # It returns probabilities already.
        return Head(own, 'other', None)
    found = {}
    for name, layer in _children(head):
        tap = f'{path}.{name}'
        if _width(layer) == channels:
            known = head_of(network, tap, channels, training)
            if known is not None:
                known = replace(known, name=own, several_labels=False)
                found.setdefault(known, f'{tap!r} ({known.what})')
    if len(found) > 1:
        words = f'{channels} channels, as several of its layers return'
        cure = f'Tap the one that you mean: {" or ".join(found.values())}.'
        return Head(own, 'unclear', None, words=words, cure=cure)
    return next(iter(found), None)


def _layer(
    head: nn.Module, rule: Rule, path: str, channels: int
) -> Head | None:
    """What a layer of a head returns."""
    module, names = head, []
    for part in path.split('.'):
        if (
            isinstance(module, nn.Sequential)
            and part != [*module._modules][-1]
        ):
            return None
        if not (part.isdigit() or _is_bare(module)):
            names.append(part)
        module = module.get_submodule(part)
    name = '.'.join(names)
    # The last of StackedLinearClsHead's layers has a name of its own.
    if module in getattr(head, 'fc', nn.Identity()).modules():
        name = 'fc'
    if re.fullmatch(rule.logits, name):
        return _logits(head, rule, channels)
    own = type(head).__name__
    if re.fullmatch(rule.sigmoids, name):
        return Head(own, 'classes', 'sigmoid')
    if re.fullmatch(rule.others, name):
        bins = getattr(head, 'reg_max', 0) + 1
        if bins > 1 and channels % (4 * bins) == 0:
            return Head(own, 'bins', 'softmax', channels // bins, bins)
        return Head(own, 'other', None)
    return None


def _logits(head: nn.Module, rule: Rule, channels: int) -> Head | None:
    own, loss = type(head).__name__, getattr(head, rule.loss, None)
    if getattr(loss, 'custom_activation', False):
        return Head(f'{own} with {type(loss).__name__}', 'other', None)
    if _is_a(head, ('RegressionHead',)):
        return Head(own, 'other', None)
    size = getattr(head, rule.size, channels) if rule.size else channels
    activations = _activations(loss)
    if rule.loss == '':
        activations = {'softmax'}
    elif rule.loss == 'loss_decode' and activations and channels == 1:
        # mmseg predicts by a sigmoid there, whatever the loss is.
        activations = {'sigmoid'}
    if channels % size or len(activations) != 1:
        return None
    (activation,) = activations
    several = _is_a(head, ('MultiLabelClsHead',))
    if rule.loss == 'loss_module' and several != (activation == 'sigmoid'):
        # mmpretrain trains by one and predicts by the other, as with a
        # binary cross entropy for one label: either may be meant.
        return None
    if activation == 'sigmoid':
        return Head(own, 'classes', activation, several_labels=several)
    return Head(own, 'classes', activation, channels // size, size)


def _activations(loss: nn.Module | None) -> set[str]:
    """With which activations a loss, or several, reads logits, if known."""
    if isinstance(loss, nn.ModuleList):
        return set().union(*map(_activations, loss))
    # LabelSmoothLoss has the loss that it smooths labels for.
    loss = getattr(loss, 'ce', loss)
    sigmoid = getattr(loss, 'use_sigmoid', None)
    if sigmoid is not None:
        # A mask of its own for each class, instead of one class a pixel.
        sigmoid = sigmoid or getattr(loss, 'use_mask', False)
        return {'sigmoid' if sigmoid else 'softmax'}
    activation = ACTIVATIONS.get(type(loss).__name__)
    return {activation} if activation else set()


def _in_wrapper(network: nn.Module, path: str, channels: int) -> Head | None:
    """What a tap of timm's or Hugging Face's classifier gives."""
    model = network.model
    if hasattr(model, 'get_classifier'):
        found, classes = model.get_classifier(), model.num_classes
    else:
        found = getattr(model, 'classifier', None)
        classes = getattr(model, 'num_labels', None)
    layers = found if isinstance(found, (tuple, list)) else [found]
    behind = set(network.get_submodule(path).modules())
    if channels != classes or behind.isdisjoint(map(_last, layers)):
        return None
    return _logits(network, RULES[0], channels)


def _children(head: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, child in head.named_children():
        if isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            for key, item in child.named_children():
                yield f'{name}.{key}', item
        else:
            yield name, child


def _is_bare(module: nn.Module) -> bool:
    """Whether it is a ConvModule that returns what its convolution does."""
    return _is_a(module, ('ConvModule',)) and not (
        module.with_norm or module.with_activation
    )


def _last(module: nn.Module) -> nn.Module:
    while isinstance(module, nn.Sequential) and len(module):
        module = module[-1]
    return module.conv if _is_bare(module) else module


def _width(module: nn.Module) -> int | None:
    """The channels that a layer returns, if that is plain."""
    layer = _last(module)
    if isinstance(layer, nn.Linear):
        return layer.out_features
    if isinstance(layer, _ConvNd):
        return layer.out_channels
    # A task's head.
    return getattr(layer, 'num_classes', None)
