from mmdiffkd.analysis.tables import aligned, markdown


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


def test_plain_text():
    rows = [('', 'MACs', 'time'), ('student', '1 G', '2 s')]
    assert aligned(rows, label=9, cell=6) == (
        '           MACs  time\nstudent     1 G   2 s'
    )
