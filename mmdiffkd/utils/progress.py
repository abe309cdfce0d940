"""How far long work is, and how long the rest takes."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from operator import length_hint
from time import monotonic
from typing import TypeVar

from mmengine.dist import is_main_process
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

#: Seconds between two lines, at least; and the part of the time so far.
LINE_INTERVAL, LINE_PART = 10, 0.1
#: Seconds between two states of the bar.
BAR_INTERVAL = 0.1

T = TypeVar('T')
#: Shows a state: how much is done, in words too, after how many seconds.
Show = Callable[[float, str, float], None]


def track(
    items: Iterable[T],
    title: str,
    unit: str = 'batches',
    total: float | None = None,
    size: Callable[[T], float] = lambda item: 1,
) -> Iterator[T]:
    """Hand items on, and show on the standard error stream how far it is.

    A terminal shows a bar. Elsewhere there is a line every 10 seconds, and
    less often in longer work: when a tenth of the time so far has passed
    again. Only the main process shows anything.

    The time that is left is measured from the end of the first item on, which
    may have waited for what happens once.

    Args:
        items (Iterable): What is worked on. An item is done when the next
            one is asked for.
        title (str): What the work is.
        unit (str): What is counted. Defaults to 'batches'.
        total (float, optional): How much there is. Defaults to None: the
            length of ``items``, if it has one.
        size (Callable): How much an item is. Defaults to 1 each.

    Yields:
        The items.
    """
    if not is_main_process():
        yield from items
        return
    total = total or length_hint(items) or None
    console = Console(stderr=True)
    shown = _bar if console.is_interactive else _lines
    with shown(console, title, total) as show:
        start = monotonic()
        done, first = 0, None
        for item in items:
            yield item
            done += size(item)
            elapsed = monotonic() - start
            if first is None:
                first = done, elapsed
            left = _time_left(done - first[0], elapsed - first[1], done, total)
            show(done, _state(done, total, unit, left), elapsed)


def _time_left(
    measured: float, seconds: float, done: float, total: float | None
) -> float | None:
    """How many seconds the rest takes; None if nothing tells."""
    if total is None or not measured or done > total:
        return None
    return seconds / measured * (total - done)


def _state(
    done: float, total: float | None, unit: str, left: float | None
) -> str:
    of = '' if total is None else f' of {total:,.0f}'
    rest = '' if left is None else f', about {_duration(left)} left'
    return f'{done:,.0f}{of} {unit}{rest}'


def _duration(seconds: float) -> str:
    """Seconds in words: 45 s, 12 min, 3 h 5 min."""
    if seconds < 60:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    if minutes < 60:
        return f'{minutes} min'
    return f'{minutes // 60} h {minutes % 60} min'


@contextmanager
def _bar(console: Console, title: str, total: float | None) -> Iterator[Show]:
    # What is printed meanwhile goes where it was meant to go. No thread draws,
    # which would take time from what is timed.
    with Progress(
        TextColumn('{task.description}', markup=False),
        BarColumn(),
        TextColumn('{task.fields[state]}', markup=False),
        console=console,
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as progress:
        task = progress.add_task(title, total=total, state='')
        drawn = 0.0

        def show(done: float, state: str, elapsed: float) -> None:
            nonlocal drawn
            progress.update(task, completed=done, state=state)
            if elapsed - drawn >= BAR_INTERVAL:
                drawn = elapsed
                progress.refresh()

        yield show


@contextmanager
def _lines(
    console: Console, title: str, total: float | None
) -> Iterator[Show]:
    last = now = 0.0

    def show(done: float, state: str, elapsed: float) -> None:
        nonlocal last, now
        now = elapsed
        if now - last >= max(LINE_INTERVAL, LINE_PART * now):
            last = now
            _print(console, f'{title}: {state}')

    yield show
    if last:
        _print(console, f'{title}: done in {_duration(now)}')


def _print(console: Console, line: str) -> None:
    print(line, file=console.file, flush=True)
