"""Finding out, before training, what taps yield and necks hand on."""

from collections.abc import (
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager
from functools import cache, partial

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.func import functional_call

from mmdiffkd.models.necks import Aligned, DistillNeck
from mmdiffkd.utils.randomness import isolated_randomness

from .recognition import Tapped
from .rois import box_head_of, run_on_boxes, whole_images
from .spec import EntrySpec
from .taps import Tap, TapError, Taps


def image_size(
    network: nn.Module, given: int | tuple[int, int] | None
) -> tuple[int, int]:
    """Height and width of the images of the dry run.

    Args:
        network (nn.Module): The student.
        given (int or tuple[int, int], optional): ``input_size`` of the
            config. None: the backbone's ``img_size``, else 224 for
            classifiers and 256 otherwise.

    Raises:
        ValueError: If ``given`` is no size.
    """
    if given is None:
        backbone = getattr(network, 'backbone', None)
        given = getattr(backbone, 'img_size', None)
    if given is None:
        head = getattr(network, 'head', None)
        given = 224 if hasattr(head, 'num_classes') else 256
    size = (given, given) if isinstance(given, int) else given
    if (
        not isinstance(size, Sequence)
        or len(size) != 2
        or not all(type(side) is int and side > 0 for side in size)
    ):
        raise ValueError(
            f'`input_size` is {given!r}. Give a positive int or '
            '(height, width).'
        )
    return tuple(size)


def forward_to_taps(
    network: nn.Module,
    inputs: Tensor,
    heads: Iterable[str],
    boxes: Mapping[str, Tensor],
) -> None:
    """Run backbone, neck and the heads named, so that the taps record.

    Args:
        network (nn.Module): An OpenMMLab model; one without
            ``extract_feat`` runs in mode ``'tensor'``.
        inputs (Tensor): A batch of images (B, 3, H, W).
        heads (Iterable[str]): Paths of heads to call on the features.
        boxes (Mapping[str, Tensor]): The boxes (n, 5) of those among them
            that are box heads, see :func:`~.rois.run_on_boxes`.
    """
    if not hasattr(network, 'extract_feat'):
        network(inputs, mode='tensor')
        return
    features = network.extract_feat(inputs)
    for head in heads:
        if head in boxes:
            run_on_boxes(network, head, features, boxes[head])
        else:
            _run_head(network, head, features)


def _run_head(network: nn.Module, path: str, features: object) -> None:
    """Call a head; in a cascade on what the heads before it gave, too."""
    root, _, number = path.partition('.')
    if root != 'decode_head' or not number:
        network.get_submodule(path)(features)
        return
    given = ()
    for head in network.get_submodule(root)[: int(number) + 1]:
        given = (head(features, *given),)


class _Wrapped(nn.Module):
    """Makes a function of a network callable by ``functional_call``."""

    def __init__(self, network: nn.Module, function: Callable) -> None:
        super().__init__()
        self.network = network
        self.function = function

    def forward(self, *args) -> None:
        self.function(self.network, *args)


def _head_of(network: nn.Module, tap: Tap) -> str:
    """The head that holds a module: a child, or an item of a list."""
    box_head = box_head_of(tap.text)
    if box_head is not None:
        return box_head
    parts = tap.path.split('.')
    if isinstance(network.get_submodule(parts[0]), nn.ModuleList):
        return '.'.join(parts[:2])
    return parts[0]


@contextmanager
def _mode(network: nn.Module, training: bool) -> Iterator[None]:
    modes = {module: module.training for module in network.modules()}
    network.train(training)
    for module in network.modules():
        # Synchronised batch norm in train mode wants a GPU and other ranks.
        if isinstance(module, nn.SyncBatchNorm):
            module.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _untouched_buffers(network: nn.Module) -> Iterator[None]:
    saved = [(b, b.detach().clone()) for b in network.buffers()]
    try:
        yield
    finally:
        for buffer, value in saved:
            buffer.data.copy_(value)


def _cure(heads: Mapping[str, str]) -> str:
    size = (
        'Set `input_size` of the distiller to a size that it takes, as an '
        'int or (height, width).'
    )
    if not heads:
        return size
    return (
        f'It was called for {" and ".join(map(repr, heads))}; a head that '
        "takes more than features (a transformer's decoder, say) cannot hold "
        f'a tap: tap backbone or neck. If the size is at fault: {size}'
    )


def shapes_elsewhere(
    network: nn.Module,
    taps: Taps,
    input_size: tuple[int, int],
    training: bool,
) -> tuple[dict[str, list[torch.Size]], tuple[int, int]] | None:
    """What taps yield for images of another size than the dry run's.

    The axes that change are those of positions.

    Args:
        network (nn.Module): The student or the teacher.
        taps (Taps): Its taps.
        input_size (tuple[int, int]): Height and width of the dry run.
        training (bool): The mode to run in.

    Returns:
        tuple or None: The shapes, and the size; None if the network takes
        images of one size alone.
    """
    small = max(input_size) <= 512
    other = tuple(2 * n if small else n // 2 for n in input_size)
    calls = taps.calls
    try:
        return dry_run(network, taps, other, training)[0], other
    except ValueError:
        return None
    finally:
        taps.calls = calls


def tapped_levels(
    network: nn.Module,
    taps: Taps,
    shapes: Mapping[str, list[torch.Size]],
    input_size: tuple[int, int],
    training: bool,
) -> dict[str, list[Tapped]]:
    """What is known of every tensor that the taps of a network yield.

    Args:
        network (nn.Module): The student or the teacher.
        taps (Taps): Its taps.
        shapes (Mapping[str, list[torch.Size]]): What :func:`dry_run` found.
        input_size (tuple[int, int]): Height and width of the dry run.
        training (bool): The mode that it ran in.
    """

    @cache
    def elsewhere() -> tuple | None:
        return shapes_elsewhere(network, taps, input_size, training)

    def one(text: str, number: int) -> tuple[torch.Size, tuple] | None:
        found = elsewhere()
        return found and (found[0][text][number], found[1])

    return {
        text: [
            Tapped(
                text, name, shape, taps.role, network, partial(one, text, n)
            )
            for n, (name, shape) in enumerate(zip(taps.names(text), levels))
        ]
        for text, levels in shapes.items()
    }


def dry_run(
    network: nn.Module,
    taps: Taps,
    input_size: tuple[int, int],
    training: bool,
) -> tuple[dict[str, list[torch.Size]], dict[str, str]]:
    """Run a network once on a batch of two and see what its taps yield.

    It runs on meta tensors, which costs no arithmetic and moves no buffer; a
    network with an operator that has no meta kernel runs for real, and its
    buffers are restored. No random generator moves.

    Args:
        network (nn.Module): The student or the teacher.
        taps (Taps): Its taps.
        input_size (tuple[int, int]): Height and width of the images.
        training (bool): The mode to run in; some networks return other
            structures in the two.

    Returns:
        tuple: The shapes of each tap's tensors, one a level, with a batch
        of 2 (in a RoI head, of two boxes); and the head that has to be
        called, by tap, for those taps that need one.

    Raises:
        ValueError: If the network cannot run at this size, or a tap is at
            fault (see :class:`Taps`).
    """
    inputs = torch.zeros(2, 3, *input_size)
    state = {
        f'network.{name}': torch.empty_like(tensor, device='meta')
        for name, tensor in [
            *network.named_parameters(),
            *network.named_buffers(),
        ]
    }

    heads: dict[str, str] = {}

    def attempt(run: Callable) -> tuple[dict, dict]:
        heads.clear()
        for _ in range(2):
            with taps.record():
                run()
            if heads or not taps.silent:
                break
            # What did not fire in backbone and neck belongs to heads.
            for tap in taps.silent:
                heads[tap.text] = _head_of(network, tap)
        taps.remember_calls()
        shapes = {t: [x.shape for x in taps.read(t)] for t in taps.taps}
        return shapes, heads

    def needed(inputs: Tensor) -> tuple:
        called = list(dict.fromkeys(heads.values()))
        boxes = {h: whole_images(inputs) for h in called if box_head_of(h)}
        return inputs, called, boxes

    def on_meta() -> None:
        functional_call(
            _Wrapped(network, forward_to_taps),
            state,
            needed(inputs.to('meta')),
            # Shared modules are then swapped, and restored, once.
            tie_weights=False,
            strict=False,
        )

    def for_real() -> None:
        device = next(network.parameters()).device
        forward_to_taps(network, *needed(inputs.to(device)))

    with _mode(network, training), torch.no_grad(), isolated_randomness():
        try:
            return attempt(on_meta)
        except TapError:
            raise
        except Exception:
            with _untouched_buffers(network):
                try:
                    return attempt(for_real)
                except TapError:
                    raise
                except Exception as error:
                    height, width = input_size
                    raise ValueError(
                        f'the {taps.role} {type(network).__name__} cannot '
                        f'run on images of {height} x {width}: {error}. '
                        + _cure(heads)
                    ) from error
        finally:
            taps.clear()


def shapes_behind_necks(
    name: str,
    spec: EntrySpec,
    necks: Sequence[DistillNeck],
    shapes: Sequence[tuple[torch.Size, torch.Size]],
    batch_size: int,
    meta_supply: Mapping[str, Callable[[], object]],
) -> tuple[list[tuple[torch.Size, torch.Size]], bool]:
    """What the losses of an entry get, found on meta tensors.

    If a neck cannot run on meta tensors, because it asks for values, its
    outputs are taken to have the teacher's shape on both sides.

    Args:
        name (str): The entry's name.
        spec (EntrySpec): Its keys.
        necks (Sequence[DistillNeck]): Its necks.
        shapes (Sequence): What the necks take, the student's and the
            teacher's shape a level, with a batch of 2.
        batch_size (int): The number of images.
        meta_supply (Mapping): What a step supplies, as meta tensors.

    Returns:
        tuple: Pairs of shapes, one for each call of a loss; and whether all
        of them are certain.

    Raises:
        ValueError: If a neck does not take the entry's tensors.
    """
    resizes = any(neck.joint or neck.resizes for neck in necks)
    inputs = []
    for student, teacher in shapes:
        if not resizes:
            # A student's map has been resized by the time it is seen.
            student = student[:2] + teacher[2:]
        inputs.append(
            tuple(
                torch.empty(
                    shape[0] * batch_size // 2, *shape[1:], device='meta'
                )
                for shape in (student, teacher)
            )
        )
    if not necks:
        return [(s.shape, t.shape) for s, t in inputs], True
    if necks[0].joint:
        inputs = [tuple(map(list, zip(*inputs)))]
    found, certain = [], True
    for level, pair in enumerate(inputs):
        neck = necks[level % len(necks)]
        aligned = _on_meta(neck, pair, meta_supply, name, spec)
        student, teacher = aligned[:2] if aligned else (pair[1], pair[1])
        certain = certain and aligned is not None
        if isinstance(student, Tensor):
            student, teacher = [student], [teacher]
        found += [(s.shape, t.shape) for s, t in zip(student, teacher)]
    return found, certain


def _on_meta(
    neck: DistillNeck,
    pair: tuple,
    meta_supply: Mapping[str, Callable[[], object]],
    name: str,
    spec: EntrySpec,
) -> Aligned | None:
    """What a neck gives for meta tensors; None where it cannot run so."""
    if any(isinstance(m, nn.SyncBatchNorm) for m in neck.modules()):
        # The batch counts over all processes, and wants a GPU.
        return None
    supplied = {n: meta_supply[n]() for n in neck.asks_for if n in meta_supply}
    state = dict(neck.named_parameters()) | dict(neck.named_buffers())
    meta = {
        key: torch.empty_like(tensor, device='meta')
        for key, tensor in state.items()
    }
    try:
        with torch.no_grad():
            return functional_call(
                neck, meta, pair, supplied, tie_weights=False
            )
    except ValueError as error:
        raise ValueError(f'`distill.{name}.neck`: {error}') from error
    except Exception as error:
        if 'teacher_head' in supplied and isinstance(error, RuntimeError):
            raise ValueError(
                f'`distill.{name}.teacher_head` is {spec.teacher_head!r}, '
                f'which does not take what {spec.texts[1]} gives, averaged '
                f'over positions: {error}. Tap the feature that it reads.'
            ) from error
        print_log(
            f'distill.{name}.neck was not tried before training: {error}',
            'current',
        )
        return None
