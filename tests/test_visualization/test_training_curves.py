import json

import pytest
from PIL import Image

from mmdiffkd.visualization import plot_training_curves, read_scalars
from mmdiffkd.visualization.training_curves import _curves


def write_scalars(folder, lines, tail=''):
    file = folder / 'vis_data' / 'scalars.json'
    file.parent.mkdir(parents=True)
    file.write_text('\n'.join(map(json.dumps, lines)) + '\n' + tail)
    return file


def train_line(step, loss, **more):
    return {'loss': loss, 'epoch': 1, 'iter': step, 'step': step, **more}


def test_read_scalars_of_a_file(tmp_path):
    file = write_scalars(
        tmp_path,
        [train_line(10, 2.0), {'accuracy/top1': 30.0, 'step': 1}],
        tail='{"loss": 1.',  # what a killed run leaves
    )
    train, val = read_scalars(file)
    assert [line['loss'] for line in train] == [2.0]
    assert val == [{'accuracy/top1': 30.0, 'step': 1}]


def test_lines_of_no_step_are_left_out(tmp_path):
    file = write_scalars(tmp_path, [{'loss': 1.0}, 3, train_line(10, 2.0)])
    assert read_scalars(file) == ([train_line(10, 2.0)], [])


def test_read_scalars_of_a_resumed_run(tmp_path):
    write_scalars(
        tmp_path / '20260102_000000', [train_line(20, 1.5), train_line(30, 1)]
    )
    write_scalars(
        tmp_path / '20260101_000000', [train_line(10, 2), train_line(20, 9)]
    )
    train, val = read_scalars(tmp_path)
    assert [(line['step'], line['loss']) for line in train] == [
        (10, 2),
        (20, 1.5),
        (30, 1),
    ]
    assert val == []


def test_read_scalars_of_several_teachers(tmp_path):
    first, second = {'teachers.a/mIoU': 1.0}, {'teachers.b/mIoU': 2.0}
    write_scalars(
        tmp_path / '20260101_000000',
        [{**line, 'step': 0} for line in (first, second)],
    )
    _, val = read_scalars(tmp_path)
    assert val == [{**first, **second, 'step': 0}]


@pytest.mark.parametrize('name', ['', 'vis_data/scalars.json'])
def test_read_scalars_without_a_log(tmp_path, name):
    with pytest.raises(FileNotFoundError, match='work directory'):
        read_scalars(tmp_path / name)


def test_curves_by_pattern_and_unit():
    line = train_line(10, 2.0, **{'distill.a.loss_kd': 0.5})
    logs = {
        'alone': ([train_line(10, 3.0)], [{'acc': 40.0, 'step': 1}]),
        'distilled': ([line, train_line(20, 1.0)], [{'acc': 50.0, 'step': 1}]),
        'by iteration': ([{'iter': 5, 'step': 5}], [{'acc': 9.0, 'step': 5}]),
    }
    # 'loss' is the task's alone, not whatever contains the word.
    assert _curves(logs, 'loss') == {
        ('alone', 'loss'): ((10,), (3.0,), 'iteration'),
        ('distilled', 'loss'): ((10, 20), (2.0, 1.0), 'iteration'),
    }
    assert list(_curves(logs, 'distill.*loss*')) == [
        ('distilled', 'distill.a.loss_kd')
    ]
    assert [unit for _, _, unit in _curves(logs, 'acc').values()] == [
        'epoch',
        'epoch',
        'iteration',
    ]


def test_plot_training_curves(tmp_path):
    more = {'distill.a.loss_kd': 0.5, 'distill.a.loss_diff': 1.0}
    runs = {}
    for name, extra in (('alone', {}), ('distilled', more)):
        lines = [train_line(s, 2 / s, **extra) for s in (10, 20, 30)]
        lines.append({'accuracy/top1': 60.0, 'step': 1})
        runs[name] = write_scalars(tmp_path / name, lines)
    out = tmp_path / 'curves.png'
    plot_training_curves(runs, out)
    wide = Image.open(out).size
    # Without distillation there is no panel for its losses.
    plot_training_curves({'alone': runs['alone']}, out)
    narrow = Image.open(out).size
    assert wide[0] == pytest.approx(1.5 * narrow[0], abs=2)
    plot_training_curves(runs, out, keys={'accuracy/*': 'top-1 (%)'})
    assert Image.open(out).size[0] == pytest.approx(narrow[0] / 2, abs=2)


def test_plot_of_nothing(tmp_path):
    file = write_scalars(tmp_path, [train_line(1, 1.0)])
    with pytest.raises(ValueError, match='nosuchkey'):
        plot_training_curves(
            {'a': file}, tmp_path / 'x.png', keys={'nosuchkey': ''}
        )
