import pytest
import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from mmdiffkd.analysis.report.scores import score_for


def classified(truth, predicted):
    return BaseDataElement(
        gt_label=torch.tensor([truth]),
        pred_score=torch.eye(3)[predicted],
    )


def test_accuracy_of_a_class():
    score = score_for('mmpretrain', ['a', 'b', 'c'])
    for index, (truth, predicted) in enumerate([(0, 0), (0, 1), (2, 2)]):
        found = score.add(index, {}, classified(truth, predicted))
        assert found.argmax() == predicted
    assert score.values() == [50.0, None, 100.0]
    assert score.overall() == pytest.approx(200 / 3)
    assert score.confusion == {(0, 0): 1, (0, 1): 1, (2, 2): 1}


def test_where_the_teacher_alone_is_right_comes_first():
    differ = score_for('mmpretrain', ['a', 'b', 'c']).disagreement
    sure, close, right = torch.tensor(
        [[0.0, 1.0, 0.0], [0.25, 0.5, 0.25], [0.5, 0.25, 0.25]]
    )
    assert differ(0, close, right) == 1.25
    assert differ(0, right, sure) == 0.75
    assert differ(0, sure, close) == 0


def test_several_labels_have_no_accuracy():
    sample = classified(0, 0)
    sample.gt_label = torch.tensor([0, 1])
    with pytest.raises(ValueError, match='2 labels'):
        score_for('mmpretrain', ['a', 'b', 'c']).add(0, {}, sample)


def test_overlap_of_a_class():
    score = score_for('mmseg', ['a', 'b', 'c'])
    sample = BaseDataElement(
        gt_sem_seg=PixelData(data=torch.tensor([[[0, 0, 1, 255]]])),
        pred_sem_seg=PixelData(data=torch.tensor([[[0, 1, 1, 2]]])),
    )
    predicted = score.add(0, {}, sample)
    assert score.values() == [50.0, 50.0, None]
    assert score.overall() is None
    assert score.confusion == {(0, 0): 1, (0, 1): 1, (1, 1): 1}
    other = torch.tensor([[0, 1, 0, 0]], dtype=torch.int16)
    assert score.disagreement(None, predicted, other) == 0.5


BOXES = torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40], [0, 0, 4, 4]])


def detected(boxes, labels, scores):
    return BaseDataElement(
        metainfo=dict(ori_shape=(64, 64)),
        pred_instances=InstanceData(
            bboxes=BOXES[boxes],
            labels=torch.tensor(labels),
            scores=torch.tensor(scores),
        ),
    )


def test_precision_of_a_class():
    info = dict(
        instances=[
            dict(bbox=BOXES[i].tolist(), bbox_label=i, ignore_flag=0, mask=[])
            for i in (0, 1)
        ]
    )
    # Two classes of one name, and one that nothing belongs to.
    score = score_for('mmdet', ['a', 'a', 'c'])
    sample = detected([0, 2, 1], [0, 1, 0], [0.9, 0.8, 0.1])
    boxes, labels = score.add(0, info, sample)
    assert labels.tolist() == [0, 1]
    first, second, third = score.values()
    assert first == pytest.approx(100.0)
    assert (second, third) == (0.0, None)
    truth = score.truth(info, sample)
    # Of the same two boxes; of another class; of nothing.
    same = BOXES[[0, 2]], torch.tensor([0, 1])
    other = BOXES[[0]], torch.tensor([2])
    nothing = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
    differ = score.disagreement
    assert differ(truth, (boxes, labels), same) == 0
    assert differ(truth, (boxes, labels), other) == 3
    assert differ(truth, (boxes, labels), nothing) == 2


def test_no_box_at_all():
    score = score_for('mmdet', ['a'])
    info = dict(
        instances=[dict(bbox=[0, 0, 9, 9], bbox_label=0, ignore_flag=0)]
    )
    score.add(0, info, detected([], [], []))
    assert score.values() == [0.0]


def test_another_package():
    with pytest.raises(ValueError, match="'mmpose'"):
        score_for('mmpose', [])
