from mmdiffkd.analysis.tables import aligned, markdown, table


def test_markdown():
    rows = [['alone', '61.00', ''], ['a long name', '-0.50', '1.00x']]
    assert markdown(['', 'top-1', 'time'], rows).splitlines() == [
        '|  | top-1 | time |',
        '|---|---|---|',
        '| alone | 61.00 |  |',
        '| a long name | -0.50 | 1.00x |',
    ]


def test_figures_are_printed_as_they_are():
    assert markdown(['a'], [['1e3'], ['007']]).endswith('| 1e3 |\n| 007 |')


def test_a_table_without_rows():
    assert markdown(['a', 'b'], []) == '| a | b |\n|---|---|'


def test_empty_columns_are_left_out():
    columns = [
        ('', '{part}'),
        ('time', '{ms:.2f}'),
        ('memory', '{peak_mib:.1f}'),
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


def test_plain_text():
    rows = [('', 'MACs', 'time'), ('student', '1 G', '2 s')]
    assert aligned(rows, label=9, cell=6) == (
        '           MACs  time\nstudent     1 G   2 s'
    )
