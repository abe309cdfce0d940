"""Finding out, before training, what taps yield and necks hand on."""

import logging
from collections.abc import (
    Callable,
    Mapping,
    Sequence,
)
from functools import cache, partial

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.func import functional_call

from mmdiffkd.models.necks import Aligned, DistillNeck
from mmdiffkd.utils.randomness import isolated_randomness

from .forward import (
    WHOLE,
    forward_to_taps,
    head_around,
    takes_features,
)
from .recognition import Tapped
from .rois import ROI_HEAD
from .spec import EntrySpec
from .taps import SilentTap, TapError, Taps
from .trial import in_mode, run_for_real, run_on_meta


class CannotRun(ValueError):
    """A network that does not run on images of a shape.

    Args:
        start (str): Which network, and which images.
        said (str): What it says.
    """

    def __init__(self, start: str, said: str) -> None:
        super().__init__(f'{start}. {said}.')
        self.said = said


class _NotReached(Exception):
    """Taps that lie in none of the parts that ran."""


def shapes_elsewhere(
    network: nn.Module,
    taps: Taps,
    input_shape: tuple[int, ...],
    training: bool,
) -> tuple[dict[str, list[torch.Size]], tuple[int, int]] | None:
    """What taps yield for images of another size than the dry run's.

    The axes that change are those of positions.

    Args:
        network (nn.Module): The student or the teacher.
        taps (Taps): Its taps.
        input_shape (tuple[int, ...]): The shape of the dry run's images,
            (C, H, W) or (T, C, H, W).
        training (bool): The mode to run in.

    Returns:
        tuple or None: The shapes, and the size; None if the network takes
        images of one size alone.
    """
    *front, height, width = input_shape
    small = max(height, width) <= 512
    other = tuple(2 * n if small else n // 2 for n in (height, width))
    calls, stops = taps.calls, taps.stops
    try:
        return dry_run(network, taps, (*front, *other), training)[0], other
    except ValueError:
        return None
    finally:
        taps.calls, taps.stops = calls, stops


def tapped_levels(
    network: nn.Module,
    taps: Taps,
    shapes: Mapping[str, list[torch.Size]],
    input_shape: tuple[int, ...],
    training: bool,
    image: tuple[int, int] | None = None,
) -> dict[str, list[Tapped]]:
    """What is known of every tensor that the taps of a network yield.

    Args:
        network (nn.Module): The student or the teacher.
        taps (Taps): Its taps.
        shapes (Mapping[str, list[torch.Size]]): What :func:`dry_run` found.
        input_shape (tuple[int, ...]): The shape of the dry run's images,
            (C, H, W) or (T, C, H, W).
        training (bool): The mode that it ran in.
        image (tuple[int, int], optional): The one size to which the images
            of the network are resized. Defaults to None.
    """
    frames = input_shape[0] if len(input_shape) == 4 else 1

    @cache
    def elsewhere() -> tuple | None:
        return shapes_elsewhere(network, taps, input_shape, training)

    def one(text: str, number: int) -> tuple[torch.Size, tuple] | None:
        found = elsewhere()
        return found and (found[0][text][number], found[1])

    return {
        text: [
            Tapped(
                text,
                name,
                shape,
                taps.role,
                network,
                partial(one, text, n),
                frames,
                image,
            )
            for n, (name, shape) in enumerate(zip(taps.names(text), levels))
        ]
        for text, levels in shapes.items()
    }


def dry_run(
    network: nn.Module,
    taps: Taps,
    input_shape: tuple[int, ...],
    training: bool,
) -> tuple[dict[str, list[torch.Size]], dict[str, str]]:
    """Run a network once on a batch of two and see what its taps yield.

    Its backbone and neck run, and the heads that hold taps, called on the
    features. Where that does not reach every tap, the network runs whole in
    mode ``'tensor'``. It may fail there behind its last tap, and is stopped
    at that from then on.

    It runs on meta tensors, which costs no arithmetic and moves no buffer; a
    network with an operator that has no meta kernel runs for real, and its
    buffers are restored. No random generator moves.

    Args:
        network (nn.Module): The student or the teacher.
        taps (Taps): Its taps.
        input_shape (tuple[int, ...]): The shape of an image, (C, H, W), or
            of a clip, (T, C, H, W).
        training (bool): The mode to run in; some networks return other
            structures in the two.

    Returns:
        tuple: The shapes of each tap's tensors, one a level, with a batch
        of 2 (in a RoI head, of two boxes); and the head that has to be
        called, by tap, for those taps that need one. It is ``''`` for the
        whole network.

    Raises:
        CannotRun: If the network cannot run on images of this shape.
        TapError: If a tap is at fault (see :class:`Taps`).
    """
    ways = (
        partial(run_on_meta, network, input_shape, forward_to_taps),
        partial(run_for_real, network, input_shape, forward_to_taps),
    )
    errors: dict[str, Exception] = {}
    taps.stops = False
    with in_mode(network, training), torch.no_grad(), isolated_randomness():
        try:
            for route in _routes(network, taps):
                for run in ways:
                    heads: dict[str, str] = {}
                    try:
                        route(network, taps, run, heads)
                        taps.remember_calls()
                        shapes = {
                            text: [x.shape for x in taps.read(text)]
                            for text in taps.taps
                        }
                        return shapes, heads
                    except _NotReached:
                        break
                    except SilentTap as error:
                        errors[_by(route, heads)] = error
                        break
                    except TapError:
                        raise
                    except Exception as error:
                        errors[_by(route, heads)] = error
        finally:
            taps.clear()
    silent = [e for e in errors.values() if isinstance(e, SilentTap)]
    if silent:
        raise silent[-1]
    *_, last = errors.values()
    said = '; '.join(
        f'{" and ".join(ways)}: {error.rstrip(".")}'
        for error, ways in _grouped(errors).items()
    )
    raise CannotRun(
        f'the {taps.role} {type(network).__name__} cannot run on images of '
        f'{times(input_shape)}',
        said,
    ) from last


def _routes(network: nn.Module, taps: Taps) -> list[Callable]:
    """The ways to run a network, to be tried in this order."""
    in_roi_head = any(
        tap.path.split('.')[0] == ROI_HEAD for tap in taps.taps.values()
    )
    whole = type(network).forward is not nn.Module.forward
    if not hasattr(network, 'extract_feat'):
        return [_run_whole]
    if not whole or in_roi_head:
        # What boxes a network would choose there is not what is asked.
        return [_run_parts]
    return [_run_known_parts, _run_whole, _run_parts]


def _run_features(
    network: nn.Module, taps: Taps, run: Callable
) -> dict[str, str]:
    """Run backbone and neck; what holds the other taps, by tap."""
    with taps.record():
        run([])
    return {tap.text: head_around(network, tap) for tap in taps.silent}


def _call_heads(taps: Taps, run: Callable, heads: Mapping[str, str]) -> None:
    """Run backbone and neck, and heads on the features, if there are any."""
    if heads:
        with taps.record():
            run(list(dict.fromkeys(heads.values())))


def _run_known_parts(
    network: nn.Module, taps: Taps, run: Callable, heads: dict[str, str]
) -> None:
    """Run backbone, neck, and heads that are known to take features."""
    found = _run_features(network, taps, run)
    if found and not takes_features(network, found.values()):
        raise _NotReached
    heads |= found
    _call_heads(taps, run, heads)


def _run_parts(
    network: nn.Module, taps: Taps, run: Callable, heads: dict[str, str]
) -> None:
    """Run backbone and neck, and call what else holds taps on features."""
    heads |= _run_features(network, taps, run)
    _call_heads(taps, run, heads)
    called = dict.fromkeys(heads.values())
    if called and not takes_features(network, called):
        print_log(
            f"The {taps.role}'s {' and '.join(map(repr, called))}, which the "
            "network does not run in mode 'tensor', gets what `extract_feat` "
            'returns. If it takes something else, tap another module.',
            'current',
            logging.WARNING,
        )


def _run_whole(
    network: nn.Module, taps: Taps, run: Callable, heads: dict[str, str]
) -> None:
    """Run the network in mode 'tensor', as far as the last tap at least."""
    heads |= dict.fromkeys(taps.taps, WHOLE)
    with taps.record():
        try:
            run([WHOLE])
        except Exception as error:
            # On meta tensors it may fail where it would not for real.
            on_meta = any(t.is_meta for t in taps.recorded)
            if taps.silent or not taps.taps or on_meta or taps.repeated:
                raise
            taps.stops = True
            print_log(
                f'The {taps.role} {type(network).__name__} runs as far as '
                f'its last tap. Behind it: {error}',
                'current',
            )


def _by(route: Callable, heads: Mapping[str, str]) -> str:
    """How a network was run, for messages."""
    if route is _run_whole:
        return 'the whole network'
    if not heads:
        return 'backbone and neck'
    called = dict.fromkeys(heads.values())
    return f'{" and ".join(map(repr, called))} called on the features'


def _grouped(errors: Mapping[str, Exception]) -> dict[str, list[str]]:
    """The ways in which a network was run, by what it said."""
    grouped: dict[str, list[str]] = {}
    for way, error in errors.items():
        grouped.setdefault(str(error), []).append(way)
    return grouped


def times(shape: Sequence[int]) -> str:
    """A shape in words: ``'3 x 224 x 224'``."""
    return ' x '.join(map(str, shape))


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
