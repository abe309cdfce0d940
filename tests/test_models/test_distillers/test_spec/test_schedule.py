import pytest

from mmdiffkd.models.distillers import ScheduleSpec


@pytest.mark.parametrize(
    'schedule, expected',
    [
        (dict(), [1, 1, 1]),
        (dict(warmup=4), [0.25, 0.5, 0.75, 1, 1]),
        (dict(stop=2), [1, 1, 0, 0]),
        (dict(warmup=2, stop=3), [0.5, 1, 1, 0]),
        (dict(stop=0), [0, 0]),
        (dict(start=2), [0, 0, 1, 1]),
        (dict(start=1, warmup=2, stop=4), [0, 0.5, 1, 1, 0]),
    ],
)
@pytest.mark.parametrize('by_epoch', [True, False])
def test_schedule(schedule, expected, by_epoch):
    made = ScheduleSpec.read({**schedule, 'by_epoch': by_epoch}, 'schedule')
    for i, factor in enumerate(expected):
        args = (i, 1000) if by_epoch else (1000, i)
        assert made.factor(*args) == factor


@pytest.mark.parametrize('stop', [1, 3])
def test_a_stop_before_the_start(stop):
    with pytest.raises(ValueError, match=rf'`s` has start=3 and stop={stop}'):
        ScheduleSpec.read({'start': 3, 'stop': stop}, 's')


def test_whether_a_weight_changes():
    assert ScheduleSpec().constant
    assert not ScheduleSpec(start=1).constant
    assert not ScheduleSpec(start=1).never_off
    assert ScheduleSpec(warmup=3).never_off
