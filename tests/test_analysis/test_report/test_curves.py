import json
import math

import pytest
from report_runs import LINES, write_run

from mmdiffkd.analysis.report.curves import MOST_POINTS, curves_of
from mmdiffkd.analysis.report.run import read_run


@pytest.fixture
def plots_of(tmp_path):
    """Plots of logged lines, by the group's title and the key."""

    def make(*logs):
        runs = [
            read_run(write_run(tmp_path / f'run{i}', lines), f'run{i}')
            for i, lines in enumerate(logs)
        ]
        return {
            (group['title'].split()[0], plot['key']): plot
            for group in curves_of(runs)
            for plot in group['plots']
        }

    return make


def test_every_logged_value_has_a_plot(plots_of):
    plots = plots_of(LINES)
    assert list(plots) == [
        ('Metrics', 'accuracy/top1'),
        ('Losses', 'loss'),
        ('Distillation', 'distill.feature.loss_kd'),
        ('Gamma', 'distill.feature.gamma'),
        ('Learning', 'lr'),
        ('Learning', 'time'),
        ('Learning', 'validation: time'),
    ]
    assert plots['Losses', 'loss'] == dict(
        key='loss',
        unit='iteration',
        measure='',
        curves=[
            dict(
                run=0,
                teacher=None,
                x=[2, 4, 6, 8],
                y=[2.0, 1.5, 1.25, 1.0],
                every=1,
                lost=0,
            )
        ],
    )


def test_the_sum_of_all_losses_is_no_loss_of_the_task(plots_of):
    lines = [{**line, 'loss_bbox': 0.5} for line in LINES if 'loss' in line]
    plots = plots_of(lines)
    assert ('Sum', 'loss') in plots and ('Losses', 'loss') not in plots
    assert ('Losses', 'loss_bbox') in plots


def test_sizes_without_objects_have_no_precision(plots_of):
    values = {'coco/bbox_mAP': 0.5, 'coco/bbox_mAP_l': -1.0}
    plots = plots_of([{**values, 'step': 1}])
    assert list(plots) == [('Metrics', 'coco/bbox_mAP')]


def test_units(plots_of):
    plots = plots_of(LINES, [{'aAcc': 1.0, 'coco/bbox_mAP': 0.5, 'step': 1}])
    measures = {key: plot['measure'] for (_, key), plot in plots.items()}
    units = {'accuracy/top1': '%', 'aAcc': '%', 'coco/bbox_mAP': '', 'lr': ''}
    units |= {'time': 's', 'validation: time': 's'}
    assert units.items() <= measures.items()


def test_the_teacher_is_a_line_in_the_plot_of_the_metric(plots_of):
    others = [
        {'teachers.big/accuracy/top1': 80.0, 'step': 0},
        {'teachers.small/accuracy/top1': 70.0, 'step': 0},
        *LINES[1:],
    ]
    plot = plots_of(LINES, others)['Metrics', 'accuracy/top1']
    assert plot['unit'] == 'epoch'
    assert [
        (curve['run'], curve['teacher'], curve['x'], curve['y'])
        for curve in plot['curves']
    ] == [
        (0, 'teacher', [0, 2], [90.0, 90.0]),
        (0, None, [1, 2], [40.0, 62.5]),
        (1, 'teacher big', [0, 2], [80.0, 80.0]),
        (1, 'teacher small', [0, 2], [70.0, 70.0]),
        (1, None, [1, 2], [40.0, 62.5]),
    ]


def test_runs_of_other_units_have_plots_of_their_own(plots_of):
    by_iteration = [{'iter': 5, 'loss': 1.0, 'step': 5}]
    by_iteration.append({'accuracy/top1': 9.0, 'step': 5})
    plots = plots_of(LINES, by_iteration)
    metric = plots['Metrics', 'accuracy/top1']
    assert (metric['unit'], len(metric['curves'])) == ('iteration', 1)
    assert len(plots['Losses', 'loss']['curves']) == 2


def test_what_is_not_finite_is_a_gap(plots_of):
    lines = [
        {'loss': value, 'epoch': 1, 'step': step}
        for step, value in enumerate([1.0, math.nan, math.inf, 2.0])
    ]
    (curve,) = plots_of(lines)['Losses', 'loss']['curves']
    assert curve['y'] == [1.0, None, None, 2.0]
    assert curve['lost'] == 2
    json.dumps(curve, allow_nan=False)


def test_a_long_curve_is_thinned(plots_of):
    last = 2 * MOST_POINTS + 2
    lines = [
        {'loss': float(step), 'epoch': 1, 'step': step}
        for step in range(last + 1)
    ]
    (curve,) = plots_of(lines)['Losses', 'loss']['curves']
    assert curve['every'] == 3
    assert curve['x'][:2] == [0, 3]
    assert curve['x'][-2:] == [last - 1, last]
    assert curve['x'] == curve['y']


def test_what_is_no_number_is_left_out(plots_of):
    lines = [{'accuracy/classwise': [1, 2], 'note': 'x', 'step': 1}]
    assert plots_of(lines) == {}
