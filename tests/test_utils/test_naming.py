from pathlib import Path

import pytest

from mmdiffkd.utils.naming import did_you_mean, left_over_hint, type_name


def test_nearest_names_first():
    hint = did_you_mean('backbon', ['backbone', 'neck', 'head'])
    assert hint == "Did you mean 'backbone'?"


def test_what_is_no_text():
    assert did_you_mean(7, ['neck7', 'head']) == "Did you mean 'neck7'?"


def test_all_names_when_none_is_near():
    assert did_you_mean('x', ['b', 'a']) == 'Known names: a, b'


@pytest.mark.parametrize('kind', ['Path', 'pathlib.Path', Path])
def test_a_type_is_a_name_or_a_class(kind):
    assert type_name(kind) == 'Path'


def test_only_arguments_that_a_class_lacks_are_left_over():
    with pytest.raises(TypeError) as caught:
        dict.fromkeys(absent=1)
    assert left_over_hint(caught.value) == ''
    with pytest.raises(TypeError) as caught:
        type_name(None, absent=1)
    assert '_delete_=True' in left_over_hint(caught.value)
