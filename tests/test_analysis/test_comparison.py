import csv
import math

import pytest
from PIL import Image
from scipy import stats
from stand_in_tools import calls, write_stand_ins

from mmdiffkd.analysis import training
from mmdiffkd.analysis.comparison import (
    default_metric,
    holm,
    metric_of,
    plan,
    read_variants,
    summarise,
    train_and_evaluate,
    write_tables,
)
from mmdiffkd.analysis.training import Run


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A folder with stand-ins for the tools and two configs."""
    write_stand_ins(tmp_path)
    monkeypatch.setattr(training, 'TOOLS', tmp_path)
    return tmp_path


def test_variants_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'grid.py').write_text(
        "variants = {'a': ('a.py', {})}\nval = {'b': ('a.py', {'c': 1})}\n"
    )
    assert read_variants('grid.py') == {'a': ('a.py', {})}
    assert read_variants('grid.py:val') == {'b': ('a.py', {'c': 1})}
    with pytest.raises(ValueError, match="dict 'x'.*has variants, val: write"):
        read_variants('grid.py:x')
    with pytest.raises(ValueError, match='grids.py:val: there is no file'):
        read_variants('grids.py:val')


def test_summary_by_hand():
    summary = summarise({'a': [60.0, 61.0, 62.0], 'b': [63.0, 63.0, 66.0]})
    assert summary['a'] == {'mean': 61.0, 'sd': 1.0}
    # The differences are 3, 2, 4: mean 3, deviation 1; Student's t for 2
    # degrees of freedom at 97.5 % is 4.302653, over sqrt(3) 2.484138.
    assert summary['b'] == pytest.approx(
        {
            'mean': 64.0,
            'sd': math.sqrt(3),
            'gain': 3.0,
            'low': 3 - 2.484138,
            'high': 3 + 2.484138,
            # t = 3 * sqrt(3); for 2 degrees p is 1 - t / sqrt(2 + t^2).
            'p': 1 - math.sqrt(27 / 29),
        }
    )


def test_correction_by_hand():
    """The smallest counts three times, and none overtakes a smaller one."""
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02] and holm([]) == []


def test_methods_are_corrected_for_their_number():
    first = [60.0, 61.0, 62.0]
    many = {'a': first, 'b': [63.0, 63.0, 66.0], 'c': [60.0, 62.0, 62.0]}
    p = 1 - math.sqrt(27 / 29)
    assert summarise(many)['b']['p'] == pytest.approx(2 * p)


def test_a_small_p_is_no_zero(tmp_path):
    values = {'a': [60.0, 61.0, 62.0], 'b': [70.0, 71.0, 72.001]}
    times = {label: [1.0] * 3 for label in values}
    text = write_tables(values, times, range(3), 'top-1', '', tmp_path / 't')
    assert '| < 0.001 | 1.00x |' in text


def test_pairing_matters():
    """A gain that is the same for each seed has no spread."""
    summary = summarise({'a': [50.0, 70.0], 'b': [54.0, 74.0]})
    assert summary['b']['low'] == summary['b']['high'] == 4.0


def test_one_seed_has_no_interval():
    summary = summarise({'a': [60.0], 'b': [64.0]})
    assert summary['b']['gain'] == 4.0
    assert math.isnan(summary['a']['sd']) and math.isnan(summary['b']['low'])


def test_unequal_numbers_of_seeds_are_refused():
    with pytest.raises(ValueError):
        summarise({'a': [60.0, 61.0], 'b': [64.0]})


def test_tables(tmp_path):
    markdown = write_tables(
        {'alone': [60.0, 61.0, 62.0], 'DiffKD': [63.0, 63.0, 66.0]},
        {'alone': [0.1, 0.1, 0.2], 'DiffKD': [0.2, 0.3, 0.3]},
        range(3),
        'accuracy/top1',
        'A note.',
        tmp_path / 'new' / 'table',
    )
    assert markdown.splitlines()[2:] == [
        '| alone | 61.00 | 1.00 |  |  | 1.00x |',
        '| DiffKD | 64.00 | 1.73 | +3.00 (+0.52 to +5.48) | 0.035 | 2.17x |',
        '',
        'A note.',
    ]
    assert (tmp_path / 'new/table.md').read_text() == markdown
    with (tmp_path / 'new/table.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [row['method'] for row in rows] == ['alone', 'DiffKD']
    assert [float(rows[1][f'seed {s}']) for s in range(3)] == [63, 63, 66]
    assert float(rows[1]['gain']) == 3.0 and rows[0]['gain'] == ''
    assert Image.open(tmp_path / 'new/table.png').size[0] > 500


def test_tables_of_one_seed(tmp_path):
    markdown = write_tables(
        {'a': [60.0], 'b': [58.5]},
        {'a': [1.0], 'b': [1.0]},
        [0],
        'accuracy/top1',
        '',
        tmp_path / 'table',
    )
    assert '| b | 58.50 |  | -1.50 |  | 1.00x |' in markdown


def test_plan(fake):
    plain, distiller = str(fake / 'plain.py'), str(fake / 'distiller.py')
    runs = plan(
        {'a b/c': (plain, {}), 'd': (distiller, {'x': 1})},
        range(2),
        fake / 'out',
        't.pth',
        {'x': 0, 'y': 0},
    )
    # A seed is finished for all methods before the next begins.
    assert list(runs) == [
        ('a b/c', 0),
        ('d', 0),
        ('a b/c', 1),
        ('d', 1),
    ]
    assert runs['a b/c', 0].folder == fake / 'out/a-b-c/seed_0'
    assert runs['a b/c', 0].options == {
        'x': 0,
        'y': 0,
        'randomness.seed': 0,
    }
    assert runs['d', 1].options == {
        'x': 1,
        'y': 0,
        'randomness.seed': 1,
        'model.teacher.checkpoint': 't.pth',
    }


def test_a_run_begins_with_another_of_its_seed(fake):
    own = {'load_from': 'before/seed_{seed}/epoch_4.pth', 'x': 1}
    runs = plan({'a': (str(fake / 'plain.py'), own)}, range(2), fake / 'out')
    assert [run.options['load_from'] for run in runs.values()] == [
        'before/seed_0/epoch_4.pth',
        'before/seed_1/epoch_4.pth',
    ]
    assert runs['a', 1].options['x'] == 1


def test_one_checkpoint_for_several_teachers(fake):
    config = fake / 'two.py'
    config.write_text('model = dict(teachers=dict(a=dict(), b=dict()))')
    arguments = {'two': (str(config), {})}, [0], fake / 'out'
    assert list(plan(*arguments)) == [('two', 0)]
    with pytest.raises(ValueError, match=r'teachers\.a, teachers\.b.*Leave'):
        plan(*arguments, 't.pth')


def test_interval_is_students(fake):
    """Of the paired differences, by its quantile and their deviation."""
    first, second = [60.1, 61.7, 59.2, 63.3], [63.0, 62.5, 61.9, 66.2]
    row = summarise({'a': first, 'b': second})['b']
    gains = [b - a for a, b in zip(first, second)]
    half = stats.t.ppf(0.975, 3) * stats.sem(gains)
    assert row['low'] == pytest.approx(row['gain'] - half, abs=1e-12)
    assert row['high'] == pytest.approx(row['gain'] + half, abs=1e-12)


@pytest.mark.parametrize(
    'split, expected, evaluations', [('val', 64.0, 0), ('test', 44.0, 1)]
)
def test_split(fake, split, expected, evaluations):
    """The last validation, or the last checkpoint on the test data."""
    run = Run(str(fake / 'plain.py'), fake / 'run', {'randomness.seed': 4})
    for _ in range(2):
        result = train_and_evaluate(run, split)
        assert metric_of(result, 'accuracy/top1') == expected
        assert result['seconds_per_step'] == 0.2
    assert len(calls(fake)) == 1
    assert (fake / 'evaluations').exists() == bool(evaluations)
    if evaluations:
        assert len(calls(fake, 'evaluations')) == evaluations


def test_the_metric_is_the_packages(fake):
    config = fake / 'plain.py'
    assert default_metric(str(config)) == 'accuracy/top1'
    config.write_text("default_scope = 'mmdet'")
    assert default_metric(str(config)) == 'coco/bbox_mAP'
    # A fraction, in per cent.
    result = {'metrics': {'coco/bbox_mAP': 0.25}}
    assert metric_of(result, 'coco/bbox_mAP') == 25.0
