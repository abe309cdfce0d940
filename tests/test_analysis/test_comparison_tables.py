import csv
import math

import pytest
from PIL import Image
from scipy import stats

from mmdiffkd.analysis.comparison_tables import (
    holm,
    read_table,
    summarise,
    write_tables,
)


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
    times = {label: dict.fromkeys(range(3), 1.0) for label in values}
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
        {
            'alone': {0: 0.1, 1: 0.1, 2: 0.2},
            'DiffKD': {0: 0.2, 1: 0.3, 2: 0.3},
        },
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
        {'a': {0: 1.0}, 'b': {0: 1.0}},
        [0],
        'accuracy/top1',
        '',
        tmp_path / 'table',
    )
    assert '| b | 58.50 |  | -1.50 |  | 1.00x |' in markdown


def test_interval_is_students():
    """Of the paired differences, by its quantile and their deviation."""
    first, second = [60.1, 61.7, 59.2, 63.3], [63.0, 62.5, 61.9, 66.2]
    row = summarise({'a': first, 'b': second})['b']
    gains = [b - a for a, b in zip(first, second)]
    half = stats.t.ppf(0.975, 3) * stats.sem(gains)
    assert row['low'] == pytest.approx(row['gain'] - half, abs=1e-12)
    assert row['high'] == pytest.approx(row['gain'] + half, abs=1e-12)


def test_a_table_is_read_again(tmp_path):
    values = {'a': [60.0, 61.25], 'b, weight 3': [64.0, 65.0]}
    # The times of seed 0 are not known, nor any of b.
    times = {'a': {1: 0.1}, 'b, weight 3': {}}
    text = write_tables(values, times, [0, 1], 'top-1', '', tmp_path / 'table')
    assert text.splitlines()[2].endswith('| 1.00x |')
    assert text.splitlines()[3].endswith('|  |')
    assert read_table(tmp_path / 'table.csv') == {
        ('a', 0): 60.0,
        ('a', 1): 61.25,
        ('b, weight 3', 0): 64.0,
        ('b, weight 3', 1): 65.0,
    }


@pytest.mark.parametrize(
    'text', [None, 'a,seed 0\n1,2\n', 'method,seed 0\nDiffKD,high\n']
)
def test_what_is_no_table(tmp_path, text):
    path = tmp_path / 'table.csv'
    if text:
        path.write_text(text)
    with pytest.raises(ValueError, match=r'--known .*table.csv: no table'):
        read_table(path)
