import pytest
from mmengine.config import Config

from mmdiffkd.models.distillers import EntrySpec, ScheduleSpec, TeacherSpec
from mmdiffkd.models.distillers.spec import (
    DistillerSpec,
    read_entries,
    read_entry,
)


@pytest.mark.parametrize(
    'schedule, expected',
    [
        (dict(), [1, 1, 1]),
        (dict(warmup=4), [0.25, 0.5, 0.75, 1, 1]),
        (dict(stop=2), [1, 1, 0, 0]),
        (dict(warmup=2, stop=3), [0.5, 1, 1, 0]),
        (dict(stop=0), [0, 0]),
    ],
)
@pytest.mark.parametrize('by_epoch', [True, False])
def test_schedule(schedule, expected, by_epoch):
    made = ScheduleSpec.read({**schedule, 'by_epoch': by_epoch}, 'schedule')
    for i, factor in enumerate(expected):
        args = (i, 1000) if by_epoch else (1000, i)
        assert made.factor(*args) == factor


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


def test_every_wrong_key_has_a_line():
    with pytest.raises(ValueError) as caught:
        read_entry(
            'feature',
            dict(
                at=5,
                wieght=1,
                neck=dict(type='DiffKDNeck', latent=3),
                schedule=dict(stop=True),
                shared='yes',
            ),
        )
    text = str(caught.value)
    assert len(text.splitlines()) == 6
    for part in (
        '`distill.feature.at` is 5. Write a tap',
        "unknown key 'wieght'. Did you mean 'weight'?",
        "`distill.feature.neck` has an unknown key 'latent'",
        '`distill.feature.schedule.stop` is True. Use a number',
        "`distill.feature.shared` is 'yes'. Use True or False.",
        '`distill.feature` has no `loss`. Add for instance',
    ):
        assert part in text


def test_a_neck_is_no_loss():
    with pytest.raises(ValueError, match=r"loss.type` is 'DiffKDNeck'.*neck"):
        read_entry('feature', dict(at='x', loss=dict(type='DiffKDNeck')))
    with pytest.raises(ValueError, match=r"neck.type` is 'MSELoss'.*loss"):
        read_entry(
            'feature',
            dict(at='x', neck=dict(type='MSELoss'), loss=dict(type='MSELoss')),
        )


def test_every_key_is_described():
    for spec in (DistillerSpec, EntrySpec, ScheduleSpec, TeacherSpec):
        for key in spec.model_json_schema()['properties'].values():
            assert key['description'].endswith('.')
            assert key['cure'].endswith('.')


@pytest.mark.parametrize(
    'key, value, cure',
    [
        ('checkpoint', False, 'a file or an https URL'),
        ('dtype', 'int8', "Use 'bfloat16'"),
        ('trusted', 1, 'Use True or False.'),
    ],
)
def test_a_wrong_value_of_a_teacher(key, value, cure):
    given = dict(config='x.py', checkpoint=None)
    with pytest.raises(ValueError) as caught:
        TeacherSpec.read({**given, key: value}, 'teacher')
    assert f'`teacher.{key}` is {value!r}. ' in str(caught.value)
    assert cure in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


ENTRY = dict(at='x', loss=dict(type='MSELoss'))


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


@pytest.mark.parametrize(
    'part, former, kept, new',
    [
        ('neck', 'DiffKDNeck', dict(latent_channels=8), 'ProjectionNeck'),
        ('loss', 'KLDivergence', dict(tau=4.0), 'MSELoss'),
    ],
)
def test_keys_of_a_former_type_are_named(part, former, kept, new):
    config = Config(dict(f={**ENTRY, part: dict(type=former, **kept)}))
    read_entries(config)
    changed = Config(dict(config._cfg_dict))
    changed.merge_from_dict({f'f.{part}.type': new})
    (key,) = kept
    with pytest.raises(ValueError) as caught:
        read_entries(changed)
    cure = f'model.distill.f.{part}._delete_=True model.distill.f.{part}.type'
    for words in (
        f'`distill.f.{part}` has keys that {new} does not take: {key!r}.',
        former,
        f"{part}=dict(_delete_=True, type='{new}'",
        f'`{cure}={new}`',
    ):
        assert words in str(caught.value)
    config.merge_from_dict({f'f.{part}._delete_': True, f'f.{part}.type': new})
    assert getattr(read_entries(config)['f'], part).arguments == {}
