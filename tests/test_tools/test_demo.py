import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def demo():
    return runpy.run_path(str(ROOT / 'tools/misc/demo.py'))


def test_configs_exist(demo):
    for config in demo['CONFIGS'].values():
        assert (ROOT / config).is_file()


def test_a_line_an_epoch(demo, capsys):
    report = demo['report_epochs']()
    for line in (
        '11/20 10:50:21 - mmengine - INFO - Checkpoints will be saved to x.',
        'INFO - Epoch(train)  [ 3][100/132]  lr: 9.9e-02  loss: 9.0000',
        'INFO - Epoch(train)  [ 3][132/132]  lr: 9.9e-02  eta: 0:00:10  '
        'time: 0.1  loss: 2.4124  distill.feature.loss_kd: 7.0000',
        'INFO - Epoch(val) [3][8/8]    accuracy/top1: 43.1500  time: 0.1',
        'INFO - Teacher on the validation data: accuracy/top1: 85.0000',
    ):
        report(line)
    epoch, accuracy = capsys.readouterr().out.splitlines()
    assert epoch.split()[:4] == ['epoch', '3', 'loss', '2.412']
    assert accuracy.split() == ['epoch', '3', 'top-1', '43.1', '%']


def test_table(demo):
    names = (demo['TEACHER'], demo['STUDENT'], demo['DISTILLED'])
    results = {name: {'top1': 61.25, 'seconds': 60.4} for name in names}
    deployed = {'deployed': {'parameters': 44_450, 'macs': 1_876_288}}
    costs = dict.fromkeys(names, deployed)
    costs[names[2]] = {**deployed, 'step_ratio': 3.049}
    lines = demo['table'](results, costs).splitlines()
    cells = ['44.5', 'k', '1.88', 'M', '61.2', '%', '60', 's']
    assert lines[2].split() == ['student', 'alone', *cells]
    assert '3.05 x' in lines[3]
