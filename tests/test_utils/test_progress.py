import os
import pty
import sys
from contextlib import contextmanager, suppress

import pytest

from mmdiffkd.utils import progress
from mmdiffkd.utils.progress import track


class Clock:
    """A clock that only moves when it is told to."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, 'monotonic', clock)
    return clock


def lines(capsys):
    captured = capsys.readouterr()
    assert captured.out == ''
    return captured.err.splitlines()


def test_short_work_says_nothing(clock, capsys):
    assert list(track(iter('abc'), 'Work')) == ['a', 'b', 'c']
    assert lines(capsys) == []


def test_a_line_every_ten_seconds(clock, capsys):
    for _ in track(range(6), 'Work'):
        clock.now += 5
    assert lines(capsys) == [
        'Work: 2 of 6 batches, about 20 s left',
        'Work: 4 of 6 batches, about 10 s left',
        'Work: 6 of 6 batches, about 0 s left',
        'Work: done in 30 s',
    ]


def test_long_work_says_less(clock, capsys):
    for _ in track(range(4000), 'Work'):
        clock.now += 1
    *said, end = lines(capsys)
    done = [int(line.split()[1].replace(',', '')) for line in said]
    assert done[:4] == [10, 20, 30, 40] and len(said) < 50
    for before, after in zip(done, done[1:]):
        # The first whole second at which a tenth of the time has passed.
        assert after - before == max(10, -(-before // 9))
    assert ' of 4,000 batches, about ' in said[-1]
    assert end == 'Work: done in 1 h 7 min'


def test_what_happens_once_is_not_in_the_time_left(clock, capsys):
    seconds = iter([600, 30, 30, 30, 30])
    for _ in track(range(5), 'Work'):
        clock.now += next(seconds)
    assert lines(capsys)[:1] == ['Work: 1 of 5 batches']
    seconds = iter([50, 30, 30, 30, 30])
    for _ in track(range(5), 'Work'):
        clock.now += next(seconds)
    # Not (50 + 30) / 2 * 3.
    assert lines(capsys)[1] == 'Work: 2 of 5 batches, about 2 min left'


def test_sizes_and_units(clock, capsys):
    blocks = iter([b'a' * 1000, b'b' * 3000, b'c' * 2000])
    for _ in track(blocks, 'Load', 'kB', total=6, size=lambda b: len(b) / 1e3):
        clock.now += 20
    assert lines(capsys) == [
        'Load: 1 of 6 kB',
        'Load: 4 of 6 kB, about 13 s left',
        'Load: 6 of 6 kB, about 0 s left',
        'Load: done in 1 min',
    ]


def test_without_a_length(clock, capsys):
    for _ in track(iter(lambda: clock.now > 30, True), 'Work', 'rounds'):
        clock.now += 20
    assert lines(capsys) == [
        'Work: 1 rounds',
        'Work: 2 rounds',
        'Work: done in 40 s',
    ]


def test_more_than_was_said_has_no_time_left(clock, capsys):
    for _ in track(range(3), 'Work', total=2):
        clock.now += 10
    assert lines(capsys)[2] == 'Work: 3 of 2 batches'


def test_work_that_fails_is_not_done(clock, capsys):
    with pytest.raises(KeyError):
        for item in track(range(3), 'Work'):
            clock.now += 20
            if item == 2:
                raise KeyError
    assert [line.split(',')[0] for line in lines(capsys)] == [
        'Work: 1 of 3 batches',
        'Work: 2 of 3 batches',
    ]


def test_other_processes_are_silent(clock, capsys, monkeypatch):
    monkeypatch.setattr(progress, 'is_main_process', lambda: False)
    for _ in track(range(6), 'Work'):
        clock.now += 20
    assert lines(capsys) == []


@contextmanager
def terminal(monkeypatch):
    """The standard error stream is a terminal; gives what it received.

    No fixture: pytest sets the stream anew between fixtures and test.
    """
    main, side = pty.openpty()
    shown = []
    with monkeypatch.context() as patch, os.fdopen(side, 'w') as stream:
        patch.setattr(sys, 'stderr', stream)
        for name in ('NO_COLOR', 'FORCE_COLOR', 'TTY_INTERACTIVE'):
            patch.delenv(name, raising=False)
        patch.setenv('TERM', 'xterm')
        patch.setenv('COLUMNS', '100')
        yield shown
    parts = []
    # Linux ends what a closed terminal holds with an error.
    with suppress(OSError):
        while part := os.read(main, 1 << 16):
            parts.append(part)
    os.close(main)
    shown.append(b''.join(parts).decode())


def test_a_terminal_shows_a_bar(clock, monkeypatch, capsys):
    with terminal(monkeypatch) as shown:
        for item in track(range(4), 'Work [b]'):
            clock.now += 20
            print(item)
    assert 'Work [b]' in shown[0] and '━' in shown[0]
    assert '2 of 4 batches, about 40 s left' in shown[0]
    # The last state stays, and the cursor comes back.
    assert shown[0].rindex('4 of 4 batches') < shown[0].rindex('\x1b[?25h')
    assert 'done in' not in shown[0]
    assert capsys.readouterr().out == '0\n1\n2\n3\n'


def test_a_bar_of_work_that_fails_gives_the_cursor_back(clock, monkeypatch):
    with terminal(monkeypatch) as shown, pytest.raises(KeyError):
        for _ in track(range(4), 'Work'):
            raise KeyError
    assert shown[0].endswith('\x1b[?25h')
