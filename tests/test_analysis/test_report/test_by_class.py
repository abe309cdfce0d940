from collections import Counter

from mmdiffkd.analysis.report.by_class import (
    MOST_CONFUSED,
    MOST_ROWS,
    confusion_plots,
    tables_of,
)


def look(label='run', classes=('a', 'b'), confusions=(), **scores):
    """What the networks of a run do, as far as tables read it."""
    return dict(
        label=label,
        classes=list(classes),
        figure='IoU',
        images=4,
        of=4,
        split='test',
        scores=scores,
        overall=dict.fromkeys(scores),
        confusions=dict(confusions),
        unscored={},
    )


def test_first_comes_the_class_in_which_the_student_is_most_behind():
    (table,) = tables_of(
        [
            look(
                classes='abcd',
                student=[50.0, 30.0, 90.0, None],
                teacher=[55.0, 80.0, 70.0, 60.0],
            )
        ]
    )
    assert table['headings'] == ['student', 'teacher', 'difference']
    assert [(row['name'], row['cells']) for row in table['rows']] == [
        ('b', ['30.0', '80.0', '-50.0']),
        ('a', ['50.0', '55.0', '-5.0']),
        ('c', ['90.0', '70.0', '+20.0']),
        ('d', ['', '60.0', '']),
    ]
    assert table['means'] == ['56.7', '66.2', '-11.7']
    assert table['title'] == ''


def test_without_a_teacher_the_worst_class_comes_first():
    (table,) = tables_of([look(student=[50.0, 30.0])])
    assert [row['name'] for row in table['rows']] == ['b', 'a']
    assert table['headings'] == ['student']


def test_of_several_teachers_the_best_counts():
    scores = {'student': [5.0], 'teacher a': [7.0], 'teacher b': [9.0]}
    (table,) = tables_of([look(classes='a', **scores)])
    assert table['rows'][0]['cells'][-1] == '-4.0'


def test_runs_side_by_side():
    first = look('one', student=[1.0, 2.0], teacher=[3.0, 5.0])
    second = look('two', student=[2.0, 1.0], teacher=[3.0, 5.0])
    second['unscored'] = {'teacher b': 'its weights are random.'}
    other = look('three', classes='xy', student=[1.0, 2.0])
    table, apart = tables_of([first, second, other])
    # Both have the same teacher.
    assert table['headings'] == [
        'one',
        'one: teacher',
        'one: difference',
        'two',
        'two: difference',
    ]
    assert table['rows'][0]['name'] == 'b'
    assert table['rows'][0]['cells'] == ['2.0', '5.0', '-3.0', '1.0', '-4.0']
    assert table['unscored'] == {'two: teacher b': 'its weights are random.'}
    assert (table['title'], apart['title']) == ('one, two', 'three')


def test_all_images():
    seen = look(student=[50.0, 30.0], teacher=[60.0, 40.0])
    assert tables_of([seen])[0]['overall'] == ['', '', '']
    seen['overall'] = dict(student=41.0, teacher=50.5)
    assert tables_of([seen])[0]['overall'] == ['41.0', '50.5', '-9.5']


def test_thousands_of_classes():
    count = 30_000
    names = [str(i) for i in range(count)]
    confusion = Counter({(29_999, 7): 5, (7, 7): 5})
    seen = look(
        classes=names,
        student=[float(i) for i in range(count)],
        confusions=dict(student=confusion),
    )
    (table,) = tables_of([seen])
    assert (len(table['rows']), table['classes']) == (MOST_ROWS, count)
    (plot,) = table['confusions']
    assert len(plot['rows']) == len(plot['columns']) == MOST_CONFUSED
    row, column = plot['rows'].index('29999'), plot['columns'].index('7')
    assert plot['texts'][row][column] == '100.0 % (5)'


def test_confusion():
    found = Counter({(0, 0): 3, (0, 1): 1})
    (plot,) = confusion_plots(['a', 'b'], {'student': found})
    assert plot['values'] == [[75.0, 25.0], [None, None]]
    assert plot['texts'] == [['75.0 % (3)', '25.0 % (1)'], ['none', 'none']]
