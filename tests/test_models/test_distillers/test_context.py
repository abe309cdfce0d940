import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData
from mmpretrain.models import ClsDataPreprocessor
from mmpretrain.structures import DataSample, MultiTaskDataSample
from torch import nn

from mmdiffkd.models.distillers.context import (
    batch_supply,
    meta_supply,
    roi_supply,
)
from mmdiffkd.models.distillers.rois import Sampled
from mmdiffkd.models.part import SUPPLIED

INPUTS = torch.zeros(2, 3, 32, 48)


def ask(name, samples):
    return batch_supply(INPUTS, samples)[name]()


def classified(**meta):
    return [
        DataSample(metainfo={k: v[i] for k, v in meta.items()}).set_gt_label(
            i + 1
        )
        for i in range(2)
    ]


def detected():
    boxes = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    instances = [
        InstanceData(bboxes=HorizontalBoxes(boxes)),
        InstanceData(bboxes=boxes[:0]),
    ]
    return [
        DetDataSample(gt_instances=i, metainfo=dict(img_shape=(30, 40)))
        for i in instances
    ]


def test_labels_and_indices():
    samples = classified(sample_idx=[7, 3])
    assert ask('gt_labels', samples).tolist() == [1, 2]
    assert ask('sample_idx', samples).tolist() == [7, 3]
    assert ask('sample_idx', samples).dtype == torch.long


def test_boxes_of_either_kind_and_shapes():
    boxes = ask('gt_bboxes', detected())
    assert [tuple(b.shape) for b in boxes] == [(1, 4), (0, 4)]
    assert all(type(b) is torch.Tensor for b in boxes)
    assert ask('img_shape', detected()) == [(30, 40)] * 2
    assert ask('batch_input_shape', detected()) == (32, 48)


def labelled(*labels):
    return [DataSample().set_gt_label(label) for label in labels]


def of_two_tasks():
    sample = MultiTaskDataSample()
    sample.set_field(DataSample().set_gt_label(1), 'kind')
    return sample


def of_a_task_called_gt_label():
    sample = MultiTaskDataSample()
    sample.set_field(DataSample().set_gt_label(1), 'gt_label')
    return sample


@pytest.mark.parametrize(
    'samples',
    [
        # Three labels of two images, then two of two.
        labelled([0, 2], [1]),
        labelled([0, 2], []),
        labelled([1], []),
        # One-hot, and numbers that are no classes.
        labelled([0, 1, 0], [1, 0, 0]),
        labelled(torch.tensor([0.3]), torch.tensor([1.0])),
        [of_two_tasks(), of_two_tasks()],
        [of_a_task_called_gt_label()] * 2,
    ],
)
def test_other_than_one_class_an_image_is_refused(samples):
    with pytest.raises(ValueError, match='no label, several labels, or one'):
        ask('gt_labels', samples)


def test_several_labels_are_said_before_one_hot_scores():
    preprocessor = ClsDataPreprocessor(num_classes=3, to_onehot=True)
    data = dict(inputs=[torch.zeros(3, 4, 4)] * 2)
    for labels, message in (
        (([0, 2], [1]), 'several labels'),
        ((0, 1), '`data_preprocessor.to_onehot`'),
    ):
        batch = preprocessor({**data, 'data_samples': labelled(*labels)})
        with pytest.raises(ValueError, match=message):
            ask('gt_labels', batch['data_samples'])


def test_mixed_labels_are_refused():
    samples = classified()
    samples[1].set_gt_score(torch.tensor([0.3, 0.7]))
    with pytest.raises(ValueError, match='mixed.*train_cfg.augments'):
        ask('gt_labels', samples)


@pytest.mark.parametrize(
    'name, samples, message',
    [
        ('gt_labels', detected(), 'only classification data has'),
        ('gt_bboxes', classified(), 'only detection data has'),
        ('sample_idx', classified(), "Add 'sample_idx' to `meta_keys`"),
        ('img_shape', classified(), "Add 'img_shape' to `meta_keys`"),
    ],
)
def test_what_data_lacks_is_named(name, samples, message):
    with pytest.raises(ValueError, match=message):
        ask(name, samples)


def test_classes_of_sampled_boxes():
    labels = torch.tensor([1, 0])
    boxes = torch.zeros(2, 5)
    heads = 'roi_head.bbox_head', 'roi_head.bbox_head.0'

    def labels_of(sampled):
        return roi_supply(heads, {heads[0]: sampled})['roi_labels']()

    assert labels_of(Sampled(boxes, labels)) is labels
    with pytest.raises(ValueError, match='no `loss_cls`'):
        labels_of(Sampled(boxes, None))
    assert roi_supply(None, {}) == {}


def test_stand_ins_for_all_that_is_supplied():
    supply = meta_supply(3, (32, 48), nn.Linear(4, 5), torch.Size((2, 5)))
    assert set(supply) == set(SUPPLIED)
    values = {name: value() for name, value in supply.items()}
    assert values['teacher_head'].weight.is_meta
    assert values['teacher_logits'].shape == (3, 5)
    assert values['roi_labels'].shape == (3,)
    assert [box.shape for box in values['gt_bboxes']] == [(1, 4)] * 3
    assert values['img_shape'] == [(32, 48)] * 3
    assert values['batch_input_shape'] == (32, 48)
    assert set(SUPPLIED) - set(meta_supply(3, (32, 48))) == {
        'teacher_head',
        'teacher_logits',
    }
