from mmdiffkd.analysis.report.by_class import (
    MOST_CONFUSED,
    MOST_ROWS,
    confusion_plots,
    means_of,
    rows_of,
)


def test_first_comes_the_class_in_which_the_student_is_most_behind():
    scores = {
        'student': [50.0, 30.0, 90.0, None],
        'teacher': [55.0, 80.0, 70.0, 60.0],
    }
    rows = rows_of(['a', 'b', 'c', 'd'], scores)
    assert [row['name'] for row in rows] == ['b', 'a', 'c', 'd']
    assert [row['difference'] for row in rows] == [-50.0, -5.0, 20.0, None]
    assert rows[0]['values'] == [30.0, 80.0]


def test_without_a_teacher_the_worst_class_comes_first():
    rows = rows_of(['a', 'b'], {'student': [50.0, 30.0]})
    assert [row['name'] for row in rows] == ['b', 'a']


def test_of_several_teachers_the_best_counts():
    scores = {'student': [5.0], 'teacher a': [7.0], 'teacher b': [9.0]}
    assert rows_of(['a'], scores)[0]['difference'] == -4.0


def test_means():
    scores = {'student': [50.0, None, 100.0], 'teacher': [None] * 3}
    assert means_of(scores) == [75.0, None]


def test_thousands_of_classes():
    count = 3000
    names = [str(i) for i in range(count)]
    scores = {'student': [float(i) for i in range(count)]}
    assert len(rows_of(names, scores)) == MOST_ROWS
    matrix = [[0] * count for _ in range(count)]
    matrix[2999][7] = 5
    for plot in confusion_plots(names, {'student': matrix, 't': matrix}):
        assert len(plot['counts']) == len(plot['labels']) == MOST_CONFUSED
        assert plot['of'] == count
        row, column = plot['labels'].index('2999'), plot['labels'].index('7')
        assert plot['counts'][row][column] == 5


def test_confusion():
    (plot,) = confusion_plots(['a', 'b'], {'student': [[3, 1], [0, 0]]})
    assert plot['counts'] == [[3, 1], [0, 0]]
    assert plot['shares'] == [[75.0, 25.0], [None, None]]
