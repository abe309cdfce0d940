"""Taps: places in a network where tensors are read."""

import re
from collections.abc import (
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager
from itertools import count

import torch
from torch import Tensor, nn

from mmdiffkd.utils.naming import did_you_mean

_PATTERN = re.compile(
    r'(?P<path>[A-Za-z_]\w*(?:\.\w+)*)(?P<input>@input)?'
    r'(?:\[(?P<index>.*)\])?'
)
#: Numbers the calls of all tapped modules, in their order.
_CLOCK = count()
_INTEGER = re.compile(r'[+-]?\d+')


class TapError(ValueError):
    """A tap that cannot be read."""


class SilentTap(TapError):
    """A tap that yields no tensor."""


class _AllRead(BaseException):
    """Every tap has recorded; no ``except Exception`` of a network sees it."""


class Tap:
    """A module path with an optional index or slice.

    Children of containers are dotted numbers; the index applies to the flat
    list of tensors that the module returned in one forward pass:
    ``backbone[-1]``, ``neck[0:4]``, ``head.fc``, ``backbone.layer4.1``.

    With ``@input`` after the path it is the module's first argument that is
    read, before the module can change it: ``backbone.layer4.1.relu@input[-1]``
    is what the last activation of a residual block gets, its pre-activation.

    Args:
        text (str): The tap as written in a config.

    Raises:
        TapError: If the text is not of this form.
    """

    def __init__(self, text: str) -> None:
        match = _PATTERN.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise TapError(
                f'{text!r} is not a tap. Write a module path with dotted '
                'numbers for children and an optional index or slice: '
                "'backbone[-1]', 'neck[0:4]', 'backbone.layer4.1', 'head.fc'; "
                "'...relu@input' reads what a module gets."
            )
        self.text = text
        self.path = match['path']
        self.reads_input = match['input'] is not None
        self.index = self._parse_index(match['index'])

    def _parse_index(self, text: str | None) -> int | slice | None:
        if text is None:
            return None
        parts = [part.strip() for part in text.split(':')]
        if (
            all(
                _INTEGER.fullmatch(p) or (p == '' and len(parts) > 1)
                for p in parts
            )
            and len(parts) <= 3
        ):
            numbers = [int(p) if p else None for p in parts]
            if len(parts) == 3 and numbers[2] == 0:
                raise TapError(
                    f'the slice in tap {self.text!r} has a step of 0. Use '
                    'a step of 1 or more, or leave it out.'
                )
            return numbers[0] if len(parts) == 1 else slice(*numbers)
        raise TapError(
            f'the index in tap {self.text!r} is neither an integer nor a '
            "slice. Write for instance '[-1]' or '[0:4]'."
        )

    @property
    def point(self) -> str:
        """Where the tensors are read, the tap without its index."""
        return self.path + '@input' if self.reads_input else self.path

    def __repr__(self) -> str:
        return f'Tap({self.text!r})'

    def select(self, tensors: list[Tensor], is_list: bool) -> list[Tensor]:
        """Apply the index or slice.

        Args:
            tensors (list[Tensor]): What the module returned, flattened; at
                least one.
            is_list (bool): Whether it returned a list or was called more
                than once, so that an index makes sense.

        Returns:
            list[Tensor]: The tensors that the tap stands for, one a level.

        Raises:
            TapError: On an index into a lone tensor, which would cut the
                batch, or an index beyond the list.
        """
        if self.index is None:
            return tensors
        if not is_list:
            raise TapError(
                f'tap {self.text!r} has an index, but {self.path!r} returned '
                f'one bare tensor of shape {tuple(tensors[0].shape)}; an '
                f'index would cut its batch. Write {self.path!r}.'
            )
        if isinstance(self.index, slice):
            chosen = tensors[self.index]
        elif -len(tensors) <= self.index < len(tensors):
            chosen = [tensors[self.index]]
        else:
            chosen = []
        if not chosen:
            raise TapError(
                f'tap {self.text!r} selects nothing: {self.path!r} returned '
                f'{len(tensors)} tensors. Choose an index from '
                f'{-len(tensors)} to {len(tensors) - 1}.'
            )
        return chosen


def _tensors_in(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors_in(item)


class _Recorder:
    """What one module returned, or got, since recording began.

    It is a forward hook that stays registered and is switched on and off:
    registering hooks inside a forward pass would break compiled graphs.
    """

    def __init__(
        self,
        module: nn.Module,
        reads_input: bool,
        after: Callable[[], None],
    ) -> None:
        self.on = False
        self.after = after
        self.calls = 0
        self.bare = False
        self.tensors: list[Tensor] = []
        self.versions: list[int] = []
        self.times: list[int] = []

        if reads_input:
            module.register_forward_pre_hook(self._on_input, with_kwargs=True)
        else:
            module.register_forward_hook(self._on_output)

    def _on_input(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if not self.on:
            return
        given = args[0] if args else next(iter(kwargs.values()), None)
        if getattr(module, 'inplace', False) and isinstance(given, Tensor):
            given = given.clone()
        self._record(given)

    def _on_output(
        self, module: nn.Module, args: tuple, output: object
    ) -> None:
        if self.on:
            self._record(output)

    def _record(self, value: object) -> None:
        tensors = list(_tensors_in(value))
        self.calls += 1
        self.bare = isinstance(value, Tensor)
        self.tensors += tensors
        if not torch.compiler.is_compiling():
            self.versions += [t._version for t in tensors]
            self.times.append(next(_CLOCK))
            self.after()

    def clear(self) -> None:
        self.calls = 0
        self.tensors, self.versions, self.times = [], [], []


class Taps:
    """All taps of one network, read together in one forward pass.

    Args:
        network (nn.Module): The network. Its forward hooks are the only
            thing that changes.
        taps (Iterable[str]): The taps, as written in the config.
        role (str): ``'student'`` or ``'teacher'``, for error messages.

    Raises:
        TapError: If a path does not exist; the nearest ones are listed.
    """

    def __init__(
        self, network: nn.Module, taps: Iterable[str], role: str
    ) -> None:
        self.role = role
        self.taps = {text: Tap(text) for text in taps}
        self._recorders: dict[str, _Recorder] = {}
        #: How often each module was called at start-up, and how many tensors
        #: it gave, by where it is read.
        self.calls: dict[str, tuple[int, int]] = {}
        self._first_axes: dict[str, set[int]] = {}
        #: Whether the network fails behind its last tap and is stopped there.
        self.stops = False
        self._waiting_for: list[str] = []
        self._network = network
        modules = dict(network.named_modules())
        for tap in self.taps.values():
            if tap.path not in modules:
                raise TapError(
                    f'the {role} {type(network).__name__} has no module '
                    f'{tap.path!r} (tap {tap.text!r}). '
                    + did_you_mean(tap.path, filter(None, modules))
                )
            if type(modules[tap.path]).forward is nn.Module.forward:
                raise TapError(
                    f'tap {tap.text!r}: {tap.path!r} of the {role} is a '
                    f'{type(modules[tap.path]).__name__}, which holds modules '
                    f'and does not run itself. {self._inside(tap.path)}'
                )
            if tap.point not in self._recorders:
                self._recorders[tap.point] = _Recorder(
                    modules[tap.path], tap.reads_input, self._maybe_stop
                )

    def _inside(self, path: str) -> str:
        """The modules in a module, as a cure."""
        names = [
            f'{path}.{name}'
            for name, _ in self._network.get_submodule(path).named_children()
        ]
        if not names:
            return 'Tap a module that runs in the forward pass.'
        more = ', ...' if len(names) > 8 else ''
        return (
            'Tap one of its modules: '
            + ', '.join(map(repr, names[:8]))
            + f'{more}.'
        )

    def _maybe_stop(self) -> None:
        """End the forward pass if every tap waited for has recorded."""
        if self._waiting_for and all(
            self._recorders[point].calls >= self.calls[point][0]
            for point in self._waiting_for
        ):
            raise _AllRead

    @property
    def silent(self) -> list[Tap]:
        """The taps whose modules did not run while recording."""
        return [
            tap
            for tap in self.taps.values()
            if not self._recorders[tap.point].calls
        ]

    @property
    def recorded(self) -> list[Tensor]:
        """All tensors that were recorded."""
        return [t for r in self._recorders.values() for t in r.tensors]

    @property
    def repeated(self) -> bool:
        """Whether a tapped module ran more than once while recording."""
        return any(r.calls > 1 for r in self._recorders.values())

    @contextmanager
    def record(
        self, texts: Iterable[str] | None = None, stop: bool = False
    ) -> Iterator[None]:
        """Record what the tapped modules return inside the block.

        Args:
            texts (Iterable[str], optional): The taps to record. Defaults to
                None, all of them.
            stop (bool): Leave the block as soon as each of their modules has
                run as often as at start-up. Nothing stops in a compiled
                graph. Defaults to False.
        """
        chosen = self.taps if texts is None else texts
        points = list(dict.fromkeys(self.taps[t].point for t in chosen))
        self.clear()
        for point in points:
            self._recorders[point].on = True
        self._waiting_for = points if stop else []
        try:
            yield
        except _AllRead:
            pass
        except BaseException:
            self.clear()
            raise
        finally:
            self._waiting_for = []
            for point in points:
                self._recorders[point].on = False

    def clear(self) -> None:
        """Forget what was recorded, so that no graph outlives its step."""
        for recorder in self._recorders.values():
            recorder.clear()

    def remember_calls(self) -> None:
        """Take the recorded number of calls of each module as the norm."""
        self.calls = {
            point: (recorder.calls, len(recorder.tensors))
            for point, recorder in self._recorders.items()
        }
        self._first_axes = {
            point: {len(t) if t.dim() else 0 for t in recorder.tensors}
            for point, recorder in self._recorders.items()
        }

    def names(self, text: str) -> list[str]:
        """The names of the tensors that a tap yielded at start-up.

        Args:
            text (str): The tap; 'neck[0:2]' gives 'neck[0]' and 'neck[1]'.
        """
        tap = self.taps[text]
        _, count = self.calls[tap.point]
        if isinstance(tap.index, int) or count == 1:
            return [text]
        numbers = range(count)[tap.index or slice(None)]
        return [f'{tap.point}[{number}]' for number in numbers]

    def times(self, text: str) -> list[int]:
        """When a tap's module ran in this step, in the order of all taps."""
        return list(self._recorders[self.taps[text].point].times)

    def read(self, text: str, views: Sequence[int] = ()) -> list[Tensor]:
        """The tensors of one tap.

        Args:
            text (str): The tap.
            views (Sequence[int]): When the network began to run, where it ran
                several times in this step, each time on a batch of its own;
                their rows are put one behind the other. Defaults to ().

        Raises:
            SilentTap: If the module yields no tensor.
            TapError: If the module ran another number of times than at
                start-up, a tensor was changed in place, or what several
                views gave cannot be put together.
        """
        tap = self.taps[text]
        recorder = self._recorders[tap.point]
        known, _ = self.calls.get(tap.point, (recorder.calls, None))
        expected = known * max(len(views), 1)
        if recorder.calls == 0 and expected:
            raise TapError(
                f'the {self.role} did not call {tap.path!r} in this step, as '
                f'it did at start-up (tap {text!r}). Its loss calls an inner '
                'module directly, or `sync_bn` has replaced it: tap the '
                "layer itself, for instance 'decode_head.conv_seg', or the "
                'module around it.'
            )
        if recorder.calls != expected:
            raise TapError(
                f'the {self.role} called {tap.path!r} {recorder.calls} times '
                f'in this step, but {expected} times at start-up, so that '
                f'tap {text!r} is ambiguous. Tap a module that runs the same '
                'number of times in every step, or give several versions of '
                'each image as a list of views.'
            )
        if not recorder.tensors:
            did = 'returned none' if recorder.calls else 'did not run'
            raise SilentTap(
                f'tap {text!r} yields no tensor: {tap.path!r} of the '
                f'{self.role} {did}. {self._inside(tap.path)}'
            )
        is_list = known > 1 or not recorder.bare
        for tensor, version in zip(recorder.tensors, recorder.versions):
            if tensor._version != version:
                raise TapError(
                    f'what tap {text!r} read in the {self.role} was changed '
                    'in place afterwards (by an in-place activation, most '
                    'likely). Tap the module that changes it, read what '
                    "that module gets ('...relu@input'), or switch its "
                    '`inplace` off.'
                )
        tensors = recorder.tensors
        if views:
            tensors = self._join_views(tap, recorder, known, views)
        return tap.select(tensors, is_list)

    def _join_views(
        self, tap: Tap, recorder: _Recorder, calls: int, views: Sequence[int]
    ) -> list[Tensor]:
        """One tensor a level, of all views."""
        found = f'what tap {tap.text!r} reads in the {self.role}'
        ends = *views[1:], float('inf')
        if any(
            sum(start < time < end for time in recorder.times) != calls
            for start, end in zip(views, ends)
        ):
            raise TapError(
                f'{found} does not come view by view, so that it is not known '
                'which rows belong together. Tap the backbone, or a module '
                'that runs before the backbone gets the next view.'
            )
        tensors = recorder.tensors
        if self._first_axes.get(tap.point) != {2}:
            raise TapError(
                f'{found} does not begin with the axis of the batch, so that '
                'several views cannot be put together. Tap another module.'
            )
        if len({tensor.requires_grad for tensor in tensors}) > 1:
            raise TapError(
                f'{found} has a gradient in some views alone (a target branch '
                'that shares the module, say). Give that branch modules of '
                'its own, or tap a module that all views train.'
            )
        levels = len(tensors) // len(views)
        joined = [tensors[level::levels] for level in range(levels)]
        if any(len({t.shape[1:] for t in level}) > 1 for level in joined):
            raise TapError(
                f'{found} has other shapes in each view. Tap a module that '
                'gives each view the same.'
            )
        return [torch.cat(level) for level in joined]
