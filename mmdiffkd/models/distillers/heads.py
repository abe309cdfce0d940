"""What a tapped tensor of logits is, and which losses may compare it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn
from torch.nn.modules.conv import _ConvNd

from mmdiffkd.models.losses import DistillLoss

from ..part import DistillPart
from .taps import Tap


@dataclass(frozen=True)
class Head:
    """What a head's tensor holds.

    Attributes:
        name (str): The head's class.
        kind (str): ``'classes'``; ``'bins'``, for each side of a box a
            distribution over its distance; or ``'other'``, such as box
            offsets.
        activation (str or None): ``'softmax'`` or ``'sigmoid'``, with which
            the head is trained; None where it is neither.
        groups (int): Distributions side by side on the channels: one for
            each side of a box, or for each anchor. Defaults to 1.
        size (int or None): Channels of one distribution under a softmax.
            Defaults to None.
        several_labels (bool): Whether an image may have several labels.
            Defaults to False.
    """

    name: str
    kind: str
    activation: str | None
    groups: int = 1
    size: int | None = None
    several_labels: bool = False

    def __str__(self) -> str:
        if self.activation is None:
            words = 'values such as box offsets, no plain logits'
        elif self.activation == 'sigmoid':
            words = 'a sigmoid for each channel'
        else:
            unit = 'bins' if self.kind == 'bins' else 'classes'
            words = f'{self.groups} distributions of {self.size} {unit}'
            if self.groups == 1:
                words = f'a softmax over {self.size} {unit}'
        several = ', several labels an image' if self.several_labels else ''
        return f'{self.name}: {words}{several}'


class _Rule(NamedTuple):
    """Where heads of some base classes have their logits.

    Attributes:
        bases (tuple[str, ...]): Names of the base classes.
        loss (str): The attribute with the loss on the logits.
        size (str): The attribute with the channels of one distribution;
            empty where all channels are one.
        logits (str): Names of the layers that return logits, as a pattern.
        sigmoids (str): Of those trained with a sigmoid whatever the loss is.
        others (str): Of those that return something else.
    """

    bases: tuple[str, ...]
    loss: str
    size: str
    logits: str
    sigmoids: str = ''
    others: str = ''


_CLS = r'(?!.*(bbox|reg)_cls)(\w+_)?cls(_out|_embed|_branches)?'
_BOXES = (
    r'(\w+_)?(reg|reg_refine|reg_branches|bbox_pred|pts\w*_out)'
    r'|scales(_refine)?'
)
_RULES = (
    _Rule(
        ('ClsHead', 'MultiLabelClsHead'),
        'loss_module',
        'num_classes',
        r'fc2?|(layers\.)?head(_dist)?|dist_head|(conv|trans)_cls_head',
    ),
    _Rule(
        ('BaseDecodeHead',),
        'loss_decode',
        'out_channels',
        r'(\w+_)?(conv|cls|fc)_seg',
    ),
    _Rule(('SSDHead',), '', 'cls_out_channels', 'cls_convs', '', 'reg_convs'),
    # Classes, boxes and objectness of all anchors share the channels.
    _Rule(('YOLOV3Head',), '', '', '', '', 'convs_pred'),
    _Rule(('BBoxHead',), 'loss_cls', '', _CLS, '', _BOXES),
    _Rule(
        ('BaseDenseHead', 'DETRHead', 'BaseMaskHead'),
        'loss_cls',
        'cls_out_channels',
        _CLS,
        r'(\w+_)?(centerness|iou|obj)',
        _BOXES,
    ),
)
_WRAPPERS = 'TimmClassifier', 'HuggingFaceClassifier'
#: What they return has queries on axis 1, not channels.
_WITH_QUERIES = 'DETRHead', 'MaskFormerHead'

#: Of losses that do not say it by ``use_sigmoid``.
_ACTIVATIONS = {
    'BCEWithLogitsLoss': 'sigmoid',
    'CrossEntropyLoss': 'softmax',
    'FocalLoss': 'sigmoid',
    'GaussianFocalLoss': 'sigmoid',
    'OhemCrossEntropy': 'softmax',
    'TverskyLoss': 'softmax',
}
#: What decides of which kind a head's outputs are.
_DECISIVE = (
    'forward',
    'forward_single',
    'cls_seg',
    'loss',
    '_get_loss',
    'loss_by_feat',
    'loss_by_feat_single',
)


_TAKES = {
    'softmax': 'a softmax over the channels',
    'sigmoid': 'a sigmoid for each channel',
}
_CURES = {
    'softmax': "dict(type='KLDivergence')",
    'sigmoid': "dict(type='BinaryKLDivergence')",
}


def head_of(network: nn.Module, tap: str, channels: int) -> Head | None:
    """What the tensor of a tap is, if it is what a known head returns.

    Args:
        network (nn.Module): The student or the teacher.
        tap (str): The tap, as written in the config.
        channels (int): The tensor's channels.

    Returns:
        Head | None: None where nothing is certain: a feature; a head that
        is not of mmpretrain, mmdet or mmseg, or that overrides how its
        outputs or its loss are made.
    """
    tap = Tap(tap)
    if tap.reads_input:
        return None
    if _is_a(network, _WRAPPERS) and _is_stock(network):
        return _in_wrapper(network, tap.path, channels)
    parts = tap.path.split('.')
    for depth in range(len(parts), 0, -1):
        head = network.get_submodule('.'.join(parts[:depth]))
        for rule in _RULES:
            if _is_a(head, rule.bases):
                if not _is_stock(head):
                    return None
                if depth == len(parts):
                    return _whole(head, rule, channels)
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
    heads: tuple[Head | None, Head | None],
    said: str | None,
) -> None:
    """Refuse a loss that reads logits as what they are not.

    Args:
        where (str): The entry, for messages.
        loss (DistillLoss): The loss; one whose ``activation`` is None is not
            checked.
        heads (tuple[Head | None, Head | None]): What the student's and the
            teacher's tensors are; what is None is not checked.
        said (str, optional): The activation that the entry states for both,
            in place of what their heads were trained with.

    Raises:
        ValueError: If the loss takes another activation or other groups, or
            the tensors are no logits, or student and teacher differ.
    """
    wanted, name = loss.activation, type(loss).__name__
    if wanted is None:
        return
    if said is not None:
        if said != wanted:
            raise ValueError(
                f'{where[:-1]}.activation` is {said!r}, but {name} takes '
                f'{_TAKES[wanted]}. Use loss={_CURES[said]}, or leave '
                '`activation` out.'
            )
        heads = tuple(h if h and h.activation == said else None for h in heads)
    known = [(r, h) for r, h in zip(('student', 'teacher'), heads) if h]
    for role, head in known:
        if head.activation is None:
            raise ValueError(
                f"{where}: {name} compares logits, but the {role}'s tensor "
                f'is something else ({head}). Use a loss on values, for '
                "instance loss=dict(type='SmoothL1Loss') or "
                "loss=dict(type='MSELoss'). If it holds logits all the same, "
                f'write activation={wanted!r} in the entry.'
            )
    if len({head.activation for _, head in known}) == 2:
        raise ValueError(
            f'{where}: the logits of student and teacher are of two kinds '
            f'({known[0][1]}; {known[1][1]}). Use a teacher whose head is of '
            f"the student's kind. {_otherwise(wanted)}"
        )
    for role, head in known:
        if head.activation != wanted:
            raise ValueError(
                f"{where}: {name} takes {_TAKES[wanted]}, but the {role}'s "
                f'head gives something else ({head}). Use loss='
                f'{_cure(head)}. {_otherwise(wanted)}'
            )
        if wanted == 'softmax' and head.groups != loss.groups:
            takes = f'{loss.groups} distributions side by side'
            if loss.groups == 1:
                takes = 'one distribution over all channels'
            raise ValueError(
                f"{where}: {name} takes {takes}, but the {role}'s head gives "
                f'another number ({head}). Use loss={_cure(head)}.'
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
    """The loss for a head's logits."""
    if head.groups == 1:
        return _CURES[head.activation]
    grouped = f"dict(type='KLDivergence', groups={head.groups})"
    if head.kind == 'bins' and head.groups == 4:
        return f"dict(type='LDLoss') or loss={grouped}"
    return grouped


def _is_a(module: nn.Module, names: tuple[str, ...]) -> bool:
    """Whether a class or a base class has one of these names.

    None of the packages has to be installed.
    """
    return any(cls.__name__ in names for cls in type(module).__mro__)


def _is_stock(head: nn.Module) -> bool:
    """Whether outputs and loss are made by one of the three packages."""
    methods = (getattr(type(head), name, None) for name in _DECISIVE)
    return all(
        method.__module__.split('.')[0] in ('mmpretrain', 'mmdet', 'mmseg')
        for method in methods
        if method is not None
    )


def _whole(head: nn.Module, rule: _Rule, channels: int) -> Head | None:
    """What a head returns, by channels where it returns several things."""
    if rule.loss == 'loss_module':
        # This loss is given just what the head returns.
        return _logits(head, rule, channels)
    if _is_a(head, _WITH_QUERIES):
        return None
    if getattr(getattr(head, rule.loss, None), 'activated', False):
        # It returns probabilities already.
        return Head(type(head).__name__, 'other', None)
    found = {
        _layer(head, rule, path, channels)
        for path, layer in _children(head)
        if _width(layer) == channels
    }
    return found.pop() if len(found) == 1 else None


def _layer(
    head: nn.Module, rule: _Rule, path: str, channels: int
) -> Head | None:
    """What a layer of a head returns."""
    *parents, last = path.split('.')
    parent = head.get_submodule('.'.join(parents))
    in_sequence = last.isdigit() and isinstance(parent, nn.Sequential)
    if in_sequence and int(last) < len(parent) - 1:
        return None
    name = re.sub(r'\.\d+', '', path)
    # The last of StackedLinearClsHead's layers has a name of its own.
    if head.get_submodule(path) is getattr(head, 'fc', None):
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


def _logits(head: nn.Module, rule: _Rule, channels: int) -> Head | None:
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
    activation = _ACTIVATIONS.get(type(loss).__name__)
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
    return _logits(network, _RULES[0], channels)


def _children(head: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, child in head.named_children():
        if isinstance(child, nn.ModuleList):
            for i, item in enumerate(child):
                yield f'{name}.{i}', item
        else:
            yield name, child


def _last(module: nn.Module) -> nn.Module:
    while isinstance(module, nn.Sequential) and len(module):
        module = module[-1]
    return module


def _width(module: nn.Module) -> int | None:
    """The channels that a layer returns, if that is plain."""
    layer = _last(module)
    if isinstance(layer, nn.Linear):
        return layer.out_features
    return layer.out_channels if isinstance(layer, _ConvNd) else None
