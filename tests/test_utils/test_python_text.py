import pytest

from mmdiffkd.utils.python_text import WIDTH, as_python

LONG = dict(
    at=['bbox_head.scales.0', 'bbox_head.scales.1', 'bbox_head.scales.2'],
    neck=dict(type='MGDNeck', lambda_mgd=0.65, mask_on_channel=True),
    loss=dict(type='MSELoss', loss_weight=5.0),
    none=None,
    numbers=(1, 2e-5),
    one=('x',),
    nothing=[],
)


def test_what_fits_stands_in_one_line():
    assert as_python(dict(a=1, b=dict(c='d'))) == "dict(a=1, b=dict(c='d'))"


@pytest.mark.parametrize('indent', [0, 8])
def test_long_values_have_a_line_an_item(indent):
    text = as_python(dict(entry=LONG), indent)
    assert eval(text) == dict(entry=LONG)
    lines = text.splitlines()
    assert all(len(line) <= WIDTH for line in lines)
    assert lines[1] == ' ' * (indent + 4) + 'entry=dict('
    assert lines[-1] == ' ' * indent + ')'


def test_room_before_and_behind_counts():
    value = ['x' * 30, 'y' * 30]
    line = as_python(value)
    assert '\n' not in line
    assert '\n' not in as_python(value, before=WIDTH - len(line))
    assert '\n' in as_python(value, before=WIDTH - len(line) + 1)
