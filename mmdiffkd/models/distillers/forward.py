"""Running a network as far as its taps need it."""

import inspect
from collections.abc import Iterable, Mapping
from functools import cache

from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from .context import task_of
from .rois import box_head_of, run_on_boxes, whole_images
from .taps import Tap

_PACKAGES = 'mmpretrain', 'mmdet', 'mmseg'
#: What a network that runs whole gets, where it takes it. The second fits
#: position embeddings of Hugging Face's networks to images of another size.
_WHOLE_GETS = {'mode': 'tensor', 'interpolate_pos_encoding': True}
#: The path of the network itself, which runs whole instead of by its parts.
WHOLE = ''


def forward_to_taps(
    network: nn.Module, inputs: Tensor, heads: Mapping[str, object]
) -> None:
    """Run backbone, neck and the heads named, or all, so that taps record.

    Args:
        network (nn.Module): An OpenMMLab model.
        inputs (Tensor): A batch of images (B, C, H, W).
        heads (Mapping[str, object]): The paths of heads to call on the
            features, each with what it gets besides, see
            :func:`arguments_of`. With :data:`WHOLE` among them the network
            runs whole, in mode ``'tensor'`` if it has modes.
    """
    if WHOLE in heads:
        network(inputs, **heads[WHOLE])
        return
    features = network.extract_feat(inputs)
    for path, given in heads.items():
        if isinstance(given, Tensor):
            run_on_boxes(network, path, features, given)
        else:
            _run_head(network, path, features, given)


def has_modes(network: nn.Module) -> bool:
    """Whether a network's forward takes ``mode``, as MMEngine's models do.

    Args:
        network (nn.Module): The network.
    """
    names = inspect.signature(network.forward).parameters
    return 'mode' in names or isinstance(network, BaseModel)


def run_without_modes(
    network: nn.Module, inputs: Tensor, data_samples: object, mode: str
) -> object:
    """Call a network whose forward takes images alone.

    Args:
        network (nn.Module): The student.
        inputs (Tensor): Images (B, C, H, W).
        data_samples (object): None.
        mode (str): ``'loss'``, ``'predict'`` or ``'tensor'``.

    Returns:
        object: What the network returns; in mode ``'loss'`` an empty dict.

    Raises:
        ValueError: If there are data samples.
    """
    if data_samples is not None:
        raise ValueError(
            f'the forward of the student {type(network).__name__} takes no '
            f'`mode`, so that it has no losses, but it is given '
            f'`data_samples`, a {type(data_samples).__name__}. Give the '
            'distiller the images alone, or write a forward(inputs, '
            "data_samples, mode) that returns a dict of losses in mode 'loss'."
        )
    output = network(inputs, **arguments_of(network, [WHOLE], inputs)[WHOLE])
    return {} if mode == 'loss' else output


def _run_head(
    network: nn.Module, path: str, features: object, samples: list | None
) -> None:
    """Call a head; in a cascade on what the heads before it gave, too."""
    root, _, number = path.partition('.')
    if samples is not None:
        network.get_submodule(path)(features, samples)
        return
    if root != 'decode_head' or not number:
        network.get_submodule(path)(features)
        return
    given = ()
    for head in network.get_submodule(root)[: int(number) + 1]:
        given = (head(features, *given),)


def arguments_of(
    network: nn.Module,
    heads: Iterable[str],
    inputs: Tensor,
    boxes: Mapping[str, Tensor] | None = None,
    data_samples: list | None = None,
) -> dict[str, object]:
    """What heads get besides the features.

    Args:
        network (nn.Module): Their network.
        heads (Iterable[str]): Their paths.
        inputs (Tensor): Images (B, C, H, W).
        boxes (Mapping[str, Tensor], optional): The boxes (n, 5) of box
            heads, see :func:`~.rois.run_on_boxes`. Defaults to None: one an
            image, as large as the image.
        data_samples (list, optional): What belongs to the images. Defaults
            to None.

    Returns:
        dict[str, object]: By path: boxes for a box head; for heads that
        cannot run without them samples that tell the sizes of the images,
        without annotations; None for other heads; for the whole network its
        keyword arguments.
    """
    given: dict[str, object] = {}
    for head in dict.fromkeys(heads):
        parameters = _parameters(type(network.get_submodule(head)))
        required = [p.name for p in parameters[1:] if p.default is p.empty]
        if head == WHOLE:
            names = {p.name for p in parameters}
            given[head] = {
                name: value
                for name, value in _WHOLE_GETS.items()
                if name in names
            }
            if 'data_samples' in names:
                given[head]['data_samples'] = _bare_samples(
                    inputs, data_samples
                )
        elif box_head_of(head):
            known = boxes is not None and head in boxes
            given[head] = boxes[head] if known else whole_images(inputs)
        elif len(required) == 1 and 'data_samples' in required[0]:
            given[head] = _bare_samples(inputs, data_samples)
        else:
            given[head] = None
    return given


@cache
def _parameters(kind: type[nn.Module]) -> list[inspect.Parameter]:
    """What a module's forward method takes, by name."""
    _, *parameters = inspect.signature(kind.forward).parameters.values()
    return [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]


def _bare_samples(inputs: Tensor, data_samples: list | None) -> list:
    """A sample an image that tells its sizes, without annotations."""
    size = tuple(inputs.shape[-2:])
    keys = 'img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'
    assumed = dict.fromkeys(keys, size) | {'scale_factor': (1.0, 1.0)}
    known = [getattr(sample, 'metainfo', {}) for sample in data_samples or ()]
    if len(known) != len(inputs):
        known = [{}] * len(inputs)
    return [BaseDataElement(metainfo=assumed | dict(each)) for each in known]


def head_around(network: nn.Module, tap: Tap) -> str:
    """The head that holds a module: a child, or an item of a list."""
    box_head = box_head_of(tap.text)
    if box_head is not None:
        return box_head
    parts = tap.path.split('.')
    if isinstance(network.get_submodule(parts[0]), nn.ModuleList):
        return '.'.join(parts[:2])
    return parts[0]


def takes_features(network: nn.Module, heads: Iterable[str]) -> bool:
    """Whether calling heads on the features is what a network does itself.

    It is for what the packages call a head, in models whose ``forward`` is a
    package's.

    Args:
        network (nn.Module): The network.
        heads (Iterable[str]): The paths of modules.
    """
    methods = (
        getattr(type(network), name, None) for name in ('forward', '_forward')
    )
    return (
        task_of(network) is not None
        and all(
            method is None or method.__module__.split('.')[0] in _PACKAGES
            for method in methods
        )
        and all(head.split('.')[0].endswith('head') for head in heads)
    )
