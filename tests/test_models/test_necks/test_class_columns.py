import pytest
import torch
from no_sync import NoSynchronisation

from mmdiffkd.models.necks import ClassColumnsNeck

#: Two classes; the third label is background.
LABELS = torch.tensor([1, 2, 0, 1])


def columns(rows, classes):
    return torch.arange(rows * classes * 4.0).reshape(rows, classes * 4)


@pytest.mark.parametrize('student, teacher', [(8, 4), (4, 8), (8, 8)])
def test_columns_of_the_class_and_nothing_of_background(student, teacher):
    neck = ClassColumnsNeck(student, teacher)
    tensors = [columns(4, n // 4).add(1) for n in (student, teacher)]
    tensors[0].requires_grad_()
    aligned = neck(*tensors, LABELS)
    for picked, given in zip(aligned[:2], tensors):
        for row, source, label in zip(picked, given, LABELS.tolist()):
            first = 4 * label if len(source) == 8 else 0
            expected = source[first : first + 4]
            if label == 2:
                expected = torch.zeros(4)
            assert torch.equal(row, expected)
    assert not aligned.teacher.requires_grad
    assert (aligned.losses, aligned.metrics) == ({}, {})


def test_gradient_reaches_the_columns_that_are_compared_alone():
    student = columns(4, 2).requires_grad_()
    aligned = ClassColumnsNeck(8, 4)(student, columns(4, 1), LABELS)
    aligned.student.sum().backward()
    reached = student.grad.unflatten(1, (2, 4)).sum(2) / 4
    assert reached.tolist() == [[0, 1], [0, 0], [1, 0], [0, 1]]


def test_what_is_not_finite_in_a_background_row_does_not_count():
    student = columns(4, 2)
    student[1] = torch.inf
    student.requires_grad_()
    aligned = ClassColumnsNeck(8, 4)(student, columns(4, 1), LABELS)
    aligned.student.square().mean().backward()
    assert aligned.student.isfinite().all() and student.grad.isfinite().all()


@pytest.mark.parametrize('labels', [[2, 2, 2, 2], [2, -1, 5, 2]])
def test_background_alone(labels):
    neck = ClassColumnsNeck(8, 4)
    aligned = neck(columns(4, 2), columns(4, 1), torch.tensor(labels))
    assert not aligned.student.any() and not aligned.teacher.any()


def test_no_row():
    empty = torch.zeros(0, dtype=torch.long)
    aligned = ClassColumnsNeck(8, 4)(columns(0, 2), columns(0, 1), empty)
    assert aligned.student.shape == aligned.teacher.shape == (0, 4)


def test_other_columns_a_class():
    neck = ClassColumnsNeck(6, 3, columns=3)
    student = torch.arange(6.0).reshape(1, 6)
    aligned = neck(student, torch.zeros(1, 3), torch.tensor([1]))
    assert aligned.student.tolist() == [[3, 4, 5]]


def test_background_of_a_given_number_of_classes():
    neck = ClassColumnsNeck(4, 4, num_classes=2)
    aligned = neck(columns(4, 1).add(1), columns(4, 1).add(1), LABELS)
    assert aligned.student.any(1).tolist() == [True, False, True, True]


def test_the_host_reads_nothing():
    neck = ClassColumnsNeck(8, 4)
    student = columns(4, 2).requires_grad_()
    with NoSynchronisation():
        neck(student, columns(4, 1), LABELS).student.sum().backward()


@pytest.mark.exact
def test_compiles_without_a_graph_break():
    neck = ClassColumnsNeck(8, 4)
    compiled = torch.compile(neck, fullgraph=True, backend='eager')
    tensors = columns(4, 2), columns(4, 1), LABELS
    torch.testing.assert_close(neck(*tensors), compiled(*tensors))


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(), 'student_channels=None'),
        (dict(student_channels=4, teacher_channels=4), 'give num_classes'),
        (dict(student_channels=8, teacher_channels=12), 'neither columns=4'),
        (dict(student_channels=9, teacher_channels=4), 'neither columns=4'),
        (
            dict(student_channels=8, teacher_channels=4, columns=0),
            'columns=0',
        ),
    ],
)
def test_bad_channels(arguments, message):
    with pytest.raises(ValueError, match=message):
        ClassColumnsNeck(**arguments)


def test_maps_are_refused():
    neck = ClassColumnsNeck(8, 4)
    with pytest.raises(ValueError, match='student tensor has the shape'):
        neck(torch.zeros(1, 8, 2, 2), columns(1, 1), LABELS[:1])
