"""What a case of the fuzz tests may do: work, or fail in our own words."""

import re
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import strategies as st

import mmdiffkd

PACKAGE = str(Path(mmdiffkd.__file__).parent)

#: Values that belong to no key.
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from([(), [], {}, [1], {'type': None}, 1j, b'x', object]),
)


def mostly(good: st.SearchStrategy, bad: st.SearchStrategy = JUNK):
    """Values as they should be, and one in thirty that should not."""
    return st.integers(0, 29).flatmap(lambda i: bad if i == 29 else good)


def is_ours(error: Exception) -> bool:
    """Whether an error was raised by mmdiffkd and names what is wrong.

    A value or type error, or a file that is missing, raised in our own code,
    with the key in backticks, or what stands for it.
    """
    *_, last = traceback.extract_tb(error.__traceback__)
    return (
        isinstance(error, ValueError | TypeError | FileNotFoundError)
        and last.filename.startswith(PACKAGE)
        and re.search(r'`|\btap\b|tokens|config|checkpoint', str(error))
        is not None
    )


class Hang(BaseException):
    """Passes through every ``except Exception``."""


@contextmanager
def works_or_says_why(seconds: float = 30) -> Iterator[None]:
    """Let our errors pass; others, and a hang, fail the test.

    Args:
        seconds (float): How long a case may compute, in seconds of the
            processor, so that a busy machine does not count. Defaults to 30.
    """

    def give_up(signum, frame):
        raise Hang(f'not done after {seconds} s')

    previous = signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    except Exception as error:
        if not is_ours(error):
            raise
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)
