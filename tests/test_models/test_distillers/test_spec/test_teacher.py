import pytest

from mmdiffkd.models.distillers import TeacherSpec


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
