from mmdiffkd.utils.naming import did_you_mean


def test_nearest_names_first():
    hint = did_you_mean('backbon', ['backbone', 'neck', 'head'])
    assert hint == "Did you mean 'backbone'?"


def test_what_is_no_text():
    assert did_you_mean(7, ['neck7', 'head']) == "Did you mean 'neck7'?"


def test_all_names_when_none_is_near():
    assert did_you_mean('x', ['b', 'a']) == 'Known names: a, b'
