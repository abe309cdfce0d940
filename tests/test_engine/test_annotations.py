import pytest
import tiny_detectors
import tiny_recipes
import tiny_segmenters
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from mmpretrain.structures import DataSample, MultiTaskDataSample
from mmseg.structures import SegDataSample
from tiny_recipes import SIZE, feature_entry

from mmdiffkd.engine.annotations import check_annotations

MSE = dict(neck=dict(type='ProjectionNeck'), loss=dict(type='MSELoss'))
DKD = dict(at='head.fc', loss=dict(type='DKDLoss'))
LABELLED = DataSample().set_gt_label(1)


def classifiers(**changes):
    return tiny_recipes.distiller(**changes)


def batch(*samples):
    return dict(inputs=['images'] * len(samples), data_samples=list(samples))


def detected(**instances):
    """What ``PackDetInputs`` makes, with or without annotations."""
    sample = DetDataSample(metainfo=dict(img_shape=(SIZE, SIZE)))
    sample.gt_instances = InstanceData(**instances)
    sample.ignored_instances = InstanceData()
    return sample


UNLABELLED = {
    'a classifier': (classifiers, batch(DataSample(), DataSample())),
    'inputs alone': (classifiers, dict(inputs=['image'])),
    'a detector': (
        lambda: tiny_detectors.distiller(
            'retinanet', dict(f=dict(at='neck[0]', **MSE))
        ),
        batch(detected(), detected()),
    ),
    'a segmenter': (
        lambda: tiny_segmenters.distiller(
            'fcn', dict(f=dict(at='backbone[-1]', **MSE))
        ),
        batch(SegDataSample(metainfo=dict(img_shape=(SIZE, SIZE)))),
    ),
}


@pytest.mark.parametrize('kind', UNLABELLED)
def test_the_task_needs_annotations(build, kind):
    config, data = UNLABELLED[kind]
    model = build(config())
    with pytest.raises(
        ValueError,
        match='`train_dataloader` has no annotations, but `model.task_weight` '
        'is 1.0.*Set `model.task_weight=0`',
    ):
        check_annotations(model, data)
    model.student_task.weight = 0
    check_annotations(model, data)


@pytest.mark.parametrize(
    'data',
    [
        batch(LABELLED, LABELLED),
        # A recipe may mix images; the student's losses know what to do.
        batch(DataSample(), LABELLED),
        # An image without objects is annotated.
        batch(detected(bboxes=[], labels=[])),
        batch(MultiTaskDataSample().set_field(LABELLED, 'task0')),
        # Of other data sets nothing is known.
        ['images', 'labels'],
        dict(images=1),
        batch('a sample of another kind'),
    ],
)
def test_what_is_annotated_passes(build, data):
    check_annotations(build(classifiers()), data)


def test_a_task_without_labels_needs_none(build):
    student = tiny_recipes.self_supervised('SimCLR')
    model = build(classifiers(student=student))
    check_annotations(model, batch(DataSample()))


def test_an_entry_may_need_annotations(build):
    entries = dict(logits=DKD, feature=feature_entry())
    model = build(classifiers(distill=entries, task_weight=0))
    data = batch(DataSample(), DataSample())
    with pytest.raises(
        ValueError,
        match='`distill.logits` is active, whose DKDLoss asks for '
        "`gt_labels`. Take .* dict.type='KLDivergence'",
    ):
        check_annotations(model, data)
    check_annotations(model, batch(LABELLED))
    model.distill.logits.weight = 0
    check_annotations(model, data)
