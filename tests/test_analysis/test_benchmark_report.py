import pytest

from mmdiffkd.analysis.benchmark_report import number, split_document, table


def test_empty_columns_are_left_out():
    columns = [
        ('', lambda row: row['part']),
        ('time', number('ms', 2)),
        ('memory', number('peak_mib')),
    ]
    rows = [{'part': 'student', 'ms': 1.5}, {'part': 'teacher', 'ms': 2.0}]
    assert table(rows, columns).splitlines() == [
        '|  | time |',
        '|---|---|',
        '| student | 1.50 |',
        '| teacher | 2.00 |',
    ]
    rows[0]['peak_mib'] = 3.25
    assert table(rows, columns).endswith('| teacher | 2.00 |  |')


def test_place_in_a_document(tmp_path):
    document = tmp_path / 'document.md'
    document.write_text('a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb\n')
    assert split_document(document, 'x') == (
        'a\n<!-- x:begin -->\n',
        '<!-- x:end -->\nb\n',
    )
    with pytest.raises(ValueError, match='Add the two lines'):
        split_document(document, 'y')
