import pytest

from mmdiffkd.models.distillers.spec import read_entries, read_entry

ENTRY = dict(at='x', loss=dict(type='MSELoss'))


@pytest.mark.parametrize(
    'name, message',
    [
        ('my_loss', 'adds up every'),
        ('lossy', 'adds up every'),
        ('Feature', 'lower-case'),
        ('1st', 'lower-case'),
        ('a.b', 'lower-case'),
        ('step', 'reserved'),
        ('values', 'reserved'),
        ('train', 'reserved'),
    ],
)
def test_bad_name(name, message):
    with pytest.raises(ValueError, match=message):
        read_entry(name, dict(at='x', loss=dict(type='MSELoss')))


@pytest.mark.parametrize(
    'config, message',
    [
        (dict(att='x', loss={}), "unknown key 'att'.*'at'"),
        (
            dict(at='x', student_at='y', loss={'type': 'MSELoss'}),
            '`at` and also',
        ),
        (
            dict(at='x', loss={'type': 'a'}, teacher_head='head[0]'),
            r"teacher_head` is 'head\[0\]'.*without an index",
        ),
        (
            dict(student_at='y', loss={'type': 'MSELoss'}),
            'teacher.*`teacher_at`',
        ),
        (dict(at='y'), 'has no `loss`'),
        ('backbone', 'Write dict'),
    ],
)
def test_bad_keys(config, message):
    with pytest.raises(ValueError, match=message):
        read_entry('feature', config)


def test_what_is_read():
    loss = dict(type='MSELoss', loss_weight=2.0)
    spec = read_entry('feature', dict(at='backbone[-1]', loss=loss))
    assert spec.student_at == spec.teacher_at == ('backbone[-1]',)
    assert spec.neck is None and spec.weight == 1 and not spec.shared
    assert spec.loss.cls.__name__ == 'MSELoss'
    assert spec.loss.arguments == {'loss_weight': 2.0}
    assert spec.schedule.constant
    spec = read_entry(
        'feature',
        dict(at=None, student_at=['a', 'b'], teacher_at='c', loss=loss),
    )
    assert (spec.student_at, spec.teacher_at) == (('a', 'b'), ('c',))


@pytest.mark.parametrize(
    'given', [dict(weight=0.5), dict(loss=dict(type='MSELoss')), dict(at='x')]
)
def test_a_mistyped_entry_names_the_others(given):
    with pytest.raises(
        ValueError, match="`distill.features`.*mean 'feature'?"
    ):
        read_entries(dict(feature=ENTRY, features=given))


def test_only_a_part_of_an_entry_is_taken_for_a_mistyped_name():
    with pytest.raises(ValueError) as caught:
        read_entries(dict(feature=ENTRY, features=dict(ENTRY, wieght=1)))
    assert 'another entry' not in str(caught.value)
    with pytest.raises(ValueError) as caught:
        read_entries(dict(feature=dict(at='x')))
    assert 'another entry' not in str(caught.value)


def test_entries_of_none_are_left_out():
    assert list(read_entries(dict(a=ENTRY, b=None))) == ['a']
