from pathlib import Path

import pytest
import report_runs

from mmdiffkd.analysis.demo import (
    DISTILLED,
    START,
    STUDENT,
    TASKS,
    TEACHER,
    count_costs,
    report_epochs,
    table,
    write_page,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize('task', list(TASKS))
def test_configs_exist(task):
    for config in TASKS[task].configs.values():
        assert (ROOT / config).is_file()


@pytest.mark.parametrize('task', list(TASKS))
def test_costs_of_the_networks(monkeypatch, tmp_path, task):
    monkeypatch.chdir(tmp_path)
    Path('configs').symlink_to(ROOT / 'configs')
    for name in (START, TEACHER):
        folder = TASKS[task].work_dir / name
        folder.mkdir(parents=True)
        (folder / 'last_checkpoint').write_text('last.pth')
    costs = count_costs(TASKS[task])
    assert costs[DISTILLED]['deployed'] == costs[STUDENT]['deployed']
    assert costs[DISTILLED]['teacher']['macs'] > 0
    assert len({str(each['shape']) for each in costs.values()}) == 1


def test_both_students_go_on_from_one_start(monkeypatch, tmp_path):
    task = TASKS['cls']
    monkeypatch.chdir(tmp_path)
    Path('configs').symlink_to(ROOT / 'configs')
    for name in (START, TEACHER):
        folder = task.work_dir / name
        folder.mkdir(parents=True)
        (folder / 'last_checkpoint').write_text(f'{name}.pth')
    model = task.run(STUDENT).settings.model
    assert model.init_cfg == dict(type='Pretrained', checkpoint='start.pth')
    distiller = task.run(DISTILLED).settings.model
    assert distiller.student.init_cfg == model.init_cfg
    assert distiller.teacher.checkpoint == 'teacher.pth'
    # The start has a seed of its own, so no seed of a comparison repeats it.
    assert task.run(START).settings.randomness.seed == 1000


def test_the_page_is_about_all_three_runs(monkeypatch, tmp_path):
    task = TASKS['seg']
    monkeypatch.chdir(tmp_path)
    for name in (TEACHER, STUDENT, DISTILLED):
        report_runs.write_run(task.work_dir / name)
    for _ in range(2):
        # The page of an earlier demo is replaced.
        path = write_page(task)
    assert path == task.work_dir / 'report.html'
    page = path.read_text()
    for name in (TEACHER, STUDENT, DISTILLED):
        assert f'<p class="path">{task.work_dir / name}</p>' in page


@pytest.mark.parametrize(
    'task, metric, expected',
    [
        ('cls', 'accuracy/top1: 43.1500', ['top-1', '43.1']),
        (
            'det',
            'coco/bbox_mAP: 0.4315  coco/bbox_mAP_50: 0.9000',
            ['mAP', '43.1'],
        ),
        ('seg', 'aAcc: 90.1000  mIoU: 43.1500', ['mIoU', '43.1']),
    ],
)
def test_a_line_an_epoch(capsys, task, metric, expected):
    report = report_epochs(TASKS[task])
    for line in (
        '11/20 10:50:21 - mmengine - INFO - Checkpoints will be saved to x.',
        'INFO - Epoch(train)  [ 3][100/132]  lr: 9.9e-02  loss: 9.0000',
        'INFO - Epoch(train)  [ 3][132/132]  lr: 9.9e-02  eta: 0:00:10  '
        'time: 0.1  loss: 2.4124  distill.feature.loss_kd: 7.0000',
        f'INFO - Epoch(val) [3][8/8]    {metric}  time: 0.1',
        f'INFO - Teacher on the validation data: {metric}',
    ):
        report(line)
    epoch, evaluated = capsys.readouterr().out.splitlines()
    assert epoch.split()[:4] == ['epoch', '3', 'loss', '2.412']
    assert evaluated.split() == ['epoch', '3', *expected, '%']


def test_table():
    names = (TEACHER, STUDENT, DISTILLED)
    results = {name: {'top-1': 61.25, 'seconds': 60.4} for name in names}
    deployed = {'deployed': {'parameters': 44_450, 'macs': 1_876_288}}
    costs = dict.fromkeys(names, {**deployed, 'shape': [32, 32]})
    costs[names[2]] = {**deployed, 'step_ratio': 3.049}
    task = TASKS['cls']
    lines = table(task, results, costs).splitlines()
    cells = ['44.5', 'k', '1.88', 'M', '61.2', '%', '60', 's']
    assert lines[2].split() == ['student', 'alone', *cells]
    assert '3.05 x' in lines[3]
    assert '32 x 32' in lines[5]
