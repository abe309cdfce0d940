"""Taps, schedules, entries and grids of tokens."""

import torch
from fuzz_rules import JUNK, works_or_says_why
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mmdiffkd.models.distillers import ScheduleSpec, Tap, Taps
from mmdiffkd.models.distillers.layout import tokens_to_map
from mmdiffkd.models.distillers.spec import read_entry

PATHS = st.sampled_from(
    [
        'body',
        'body.0',
        'body.1',
        'twice',
        'pair',
        'none',
        'body.9',
        '',
        '.',
        '0',
    ]
)
NUMBERS = st.one_of(
    st.just(''), st.integers(-4, 4).map(str), st.text('-+ 0١²')
)
INDICES = st.one_of(
    st.just(''),
    st.lists(NUMBERS, max_size=4).map(lambda n: f'[{":".join(n)}]'),
    st.text('[]:-+0123456789 ', max_size=6),
)
TAPS = st.one_of(
    st.builds(
        '{}{}{}'.format, PATHS, st.sampled_from(['', '@input']), INDICES
    ),
    st.text('abody.0[]:-@input', max_size=12),
    st.text(max_size=8),
    JUNK,
)


class Network(nn.Module):
    """Modules that return a tensor, run twice, return a pair, or nothing."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True))
        self.twice = nn.Identity()
        self.pair = Pair()
        self.none = Nothing()

    def forward(self, x):
        x = self.twice(self.twice(self.body(x)))
        self.none(x)
        return self.pair(x)


class Pair(nn.Module):
    def forward(self, x):
        return x, [x + 1, {'c': x + 2}]


class Nothing(nn.Module):
    def forward(self, x):
        return None


@given(TAPS)
def test_tap(text):
    with works_or_says_why(5):
        tap = Tap(text)
        assert tap.text == text and text.startswith(tap.path)


@given(st.lists(TAPS, max_size=3))
def test_taps_of_a_network(texts):
    network = Network()
    with works_or_says_why(5):
        taps = Taps(network, texts, 'student')
        with taps.record():
            network(torch.ones(2, 3))
        for text in texts:
            read = taps.read(text)
            assert read and all(t.shape == (2, 3) for t in read)


@given(
    st.dictionaries(st.sampled_from(['warmup', 'stop', 'by_epoch']), JUNK),
    st.integers(0, 100),
    st.integers(0, 10_000),
)
def test_schedule(settings, epoch, iteration):
    with works_or_says_why(5):
        schedule = ScheduleSpec.read(settings, 'schedule')
        factor = schedule.factor(epoch, iteration)
        assert 0 <= factor <= 1
        assert factor == 1 or not schedule.constant


ENTRIES = st.one_of(
    JUNK,
    st.dictionaries(
        st.one_of(
            st.sampled_from(
                ['at', 'student_at', 'teacher_at', 'loss', 'neck']
            ),
            st.text(max_size=5),
            st.integers(),
        ),
        st.one_of(JUNK, TAPS, st.lists(TAPS, max_size=3)),
        max_size=4,
    ),
)


@given(
    st.one_of(
        st.sampled_from(['a', 'feature', 'step', 'type', 'my_loss', 'keys']),
        st.text('abyz_09', max_size=4),
        JUNK,
    ),
    ENTRIES,
)
def test_entry(name, entry):
    with works_or_says_why(5):
        spec = read_entry(name, entry)
        assert spec.student_at and spec.teacher_at and spec.loss


@given(
    st.integers(0, 80),
    st.integers(0, 3),
    st.integers(1, 64),
    st.integers(1, 64),
    st.integers(0, 9),
)
def test_tokens(count, channels, height, width, prefix):
    tokens = torch.arange(2.0 * count * channels).view(2, count, channels)
    with works_or_says_why(5):
        image = tokens_to_map(tokens, (height, width), prefix)
        assert image.flatten(2).transpose(1, 2).equal(tokens[:, prefix:])
