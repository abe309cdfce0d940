import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

ROOT = Path(__file__).resolve().parents[2]
TASKS = ('cls', 'det', 'seg')


@pytest.fixture(scope='module')
def demo():
    return runpy.run_path(str(ROOT / 'tools/misc/demo.py'))


@pytest.mark.parametrize('task', TASKS)
def test_configs_exist(demo, task):
    for config in demo['TASKS'][task].configs.values():
        assert (ROOT / config).is_file()


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
def test_a_line_an_epoch(demo, capsys, task, metric, expected):
    report = demo['report_epochs'](demo['TASKS'][task])
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


def test_table(demo):
    names = (demo['TEACHER'], demo['STUDENT'], demo['DISTILLED'])
    results = {name: {'top-1': 61.25, 'seconds': 60.4} for name in names}
    deployed = {'deployed': {'parameters': 44_450, 'macs': 1_876_288}}
    costs = dict.fromkeys(names, {**deployed, 'shape': [32, 32]})
    costs[names[2]] = {**deployed, 'step_ratio': 3.049}
    task = demo['TASKS']['cls']
    lines = demo['table'](task, results, costs).splitlines()
    cells = ['44.5', 'k', '1.88', 'M', '61.2', '%', '60', 's']
    assert lines[2].split() == ['student', 'alone', *cells]
    assert '3.05 x' in lines[3]
    assert '32 x 32' in lines[5]


def test_what_is_drawn_grows_with_the_image(demo):
    boxes = torch.tensor([[1.0, 2.0, 3.0, 5.0]])
    found = DetDataSample(pred_instances=InstanceData(bboxes=boxes))
    large = demo['enlarge'](found, 2).pred_instances.bboxes
    assert large.tolist() == [[2.0, 4.0, 6.0, 10.0]]
    assert found.pred_instances.bboxes.tolist() == boxes.tolist()

    labels = torch.arange(6).reshape(1, 2, 3)
    found = SegDataSample(pred_sem_seg=PixelData(data=labels))
    large = demo['enlarge'](found, 2).pred_sem_seg.data
    assert (large[0] == labels[0].kron(torch.ones(2, 2).long())).all()
    assert found.pred_sem_seg.shape == (2, 3)


def test_pictures_are_red_green_blue(demo):
    inputs = torch.arange(3, dtype=torch.uint8).expand(4, 5, 3)
    image = demo['image_of']({'inputs': inputs.permute(2, 0, 1)})
    assert image.shape == (4, 5, 3)
    assert (image[0, 0] == np.array([2, 1, 0])).all()
