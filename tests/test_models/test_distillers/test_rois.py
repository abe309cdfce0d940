import pytest
import tiny_detectors
import torch
from no_sync import NoSynchronisation
from torch import nn
from torch.nn import functional as F

from mmdiffkd.models.distillers.rois import (
    box_head_of,
    box_heads_of,
    pair_box_heads,
    whole_images,
)
from mmdiffkd.models.distillers.taps import TapError
from mmdiffkd.registry import MODELS

REGRESSED = 'roi_head.bbox_head.fc_reg'
FIRST_STAGE = 'roi_head.bbox_head.0.fc_reg'
#: What the last step's loss got.
SEEN = {}


@MODELS.register_module()
class RoISpyLoss(nn.Module):
    def forward(self, preds_S, preds_T, roi_labels):
        SEEN.update(student=preds_S, teacher=preds_T, labels=roi_labels)
        return F.smooth_l1_loss(preds_S, preds_T)


@MODELS.register_module()
class RoIPreparingLoss(RoISpyLoss):
    prepared = False


def boxes_entry(**changes):
    entry = {'at': REGRESSED, 'loss': dict(type='SmoothL1Loss'), **changes}
    if 'student_at' in entry:
        del entry['at']
    return entry


def make(ready, name='faster', teacher=None, entries=None, **changes):
    entries = entries or dict(boxes=boxes_entry(**changes))
    return ready(tiny_detectors.distiller(name, entries, teacher))


def step(model, *boxes, **batch):
    """What a training step logs."""
    return tiny_detectors.step(
        model, tiny_detectors.batch(model, *boxes, **batch)
    )


@pytest.fixture(autouse=True)
def nothing_seen():
    SEEN.clear()


@pytest.mark.parametrize(
    'tap, head',
    [
        (REGRESSED, 'roi_head.bbox_head'),
        (FIRST_STAGE, 'roi_head.bbox_head.0'),
        ('roi_head.bbox_head.shared_fcs.0@input[-1]', 'roi_head.bbox_head'),
        ('roi_head.bbox_roi_extractor.2', 'roi_head.bbox_head.2'),
        ('roi_head.shared_head.layer4', 'roi_head.bbox_head'),
        ('bbox_head.retina_reg', None),
        ('neck[0:4]', None),
    ],
)
def test_box_head_of_a_tap(tap, head):
    assert box_head_of(tap) == head


@pytest.mark.parametrize('tap', ['roi_head.mask_head.conv_logits', 'roi_head'])
def test_other_parts_of_a_roi_head_are_refused(tap):
    with pytest.raises(TapError, match='Tap a module of .roi_head.bbox_head'):
        box_head_of(tap)


@pytest.mark.parametrize(
    'student, teacher, head',
    [
        ([REGRESSED], ['neck'], None),
        (['neck'], [REGRESSED], None),
        ([REGRESSED, 'neck'], [REGRESSED, 'neck'], None),
        (
            [FIRST_STAGE, 'roi_head.bbox_head.1.fc_reg'],
            [FIRST_STAGE, FIRST_STAGE],
            None,
        ),
        ([REGRESSED], [REGRESSED], 'head.fc'),
        (['neck'], ['neck'], REGRESSED),
    ],
)
def test_rows_that_do_not_belong_together_are_refused(student, teacher, head):
    with pytest.raises(ValueError, match='`distill.boxes` reads.*a row for'):
        box_heads_of('boxes', student, teacher, head)


def test_one_head_of_the_teacher_runs_on_one_set_of_boxes():
    first = 'roi_head.bbox_head.0', 'roi_head.bbox_head.0'
    second = 'roi_head.bbox_head.1', 'roi_head.bbox_head.1'
    expected = {teacher: student for student, teacher in (first, second)}
    pairs = dict(a=first, b=None, c=second, d=first)
    assert pair_box_heads(pairs) == expected
    with pytest.raises(ValueError, match='`distill.b` .*on one set of boxes'):
        pair_box_heads(dict(a=first, b=(second[0], first[1])))


def test_whole_images():
    boxes = whole_images(torch.zeros(2, 3, 16, 24))
    assert boxes.tolist() == [[0, 0, 0, 24, 16], [1, 0, 0, 24, 16]]


def record(module, store, inputs=False):
    def hook(module, args, output):
        store.append(args if inputs else output)

    module.register_forward_hook(hook)


@pytest.mark.parametrize('name', ['faster', 'double', 'mask'])
def test_teacher_runs_on_the_boxes_that_the_student_sampled(ready, name):
    model = make(ready, name, loss=dict(type='RoISpyLoss'))
    student, teacher = model.student, model.teacher.network
    rois, losses, regressed, pooled = [], [], [], []
    record(student.roi_head.bbox_roi_extractor, rois, inputs=True)
    record(student.roi_head.bbox_head.loss_cls, losses, inputs=True)
    record(student.roi_head.bbox_head.fc_reg, regressed)
    record(teacher.roi_head.bbox_roi_extractor, pooled, inputs=True)
    data = tiny_detectors.batch(model, with_mask=name == 'mask')
    logged = tiny_detectors.step(model, data)
    assert logged['distill.boxes.loss_kd'] > 0
    boxes = rois[0][1]
    assert len(boxes) > 2 and torch.equal(pooled[-1][1], boxes)
    assert SEEN['student'] is regressed[0]
    assert torch.equal(SEEN['labels'], losses[0][1])
    assert (SEEN['labels'] == tiny_detectors.CLASSES).any()
    assert (SEEN['labels'] < tiny_detectors.CLASSES).any()
    # The same by hand, on the teacher's own pyramid.
    with torch.no_grad():
        features = teacher.extract_feat(data['inputs'])
        expected = teacher.roi_head._bbox_forward(features, boxes)
    assert torch.equal(SEEN['teacher'], expected['bbox_pred'])
    weight = student.roi_head.bbox_head.fc_reg.weight
    assert weight.grad.abs().sum() > 0


@pytest.mark.parametrize('name', ['cascade', 'cascade mask'])
def test_stages_of_a_cascade_have_boxes_of_their_own(ready, name):
    stages = {
        f'stage_{i}': boxes_entry(
            at=f'roi_head.bbox_head.{i}.fc_reg',
            loss=dict(type='RoISpyLoss'),
        )
        for i in (0, 2)
    }
    model = make(ready, name, entries=stages)
    rois, pooled = ([], []), ([], [])
    for i in (0, 2):
        network = model.student, model.teacher.network
        for part, store in zip(network, (rois, pooled)):
            record(
                part.roi_head.bbox_roi_extractor[i], store[i // 2], inputs=True
            )
    step(model, with_mask='mask' in name)
    for ours, theirs in zip(rois, pooled):
        assert torch.equal(ours[0][1], theirs[-1][1])
    assert not torch.equal(rois[0][0][1], rois[1][0][1])
    assert len(SEEN['labels']) == len(rois[1][0][1])


def test_class_agnostic_teacher_and_a_student_of_every_class(ready):
    model = make(
        ready,
        'faster',
        'cascade mask',
        student_at=REGRESSED,
        teacher_at=FIRST_STAGE,
        neck=dict(type='ClassColumnsNeck'),
    )
    regressed, taught, losses = [], [], []
    student = model.student.roi_head.bbox_head
    record(student.fc_reg, regressed)
    record(student.loss_cls, losses, inputs=True)
    record(model.teacher.network.roi_head.bbox_head[0].fc_reg, taught)
    logged = step(model)
    ours, theirs, labels = regressed[0], taught[-1], losses[0][1]
    assert ours.shape == (len(labels), 4 * tiny_detectors.CLASSES)
    assert theirs.shape == (len(labels), 4)
    rows = [
        F.smooth_l1_loss(row[4 * c : 4 * c + 4], target, reduction='sum')
        for row, target, c in zip(ours, theirs, labels.tolist())
        if c < tiny_detectors.CLASSES
    ]
    expected = sum(rows) / theirs.numel()
    assert len(rows) > 0
    assert logged['distill.boxes.loss_kd'].item() == pytest.approx(
        expected.item()
    )


NECKS = {
    'all boxes': None,
    'positive boxes': dict(type='ClassColumnsNeck'),
    'DiffKD': dict(type='DiffKDNeck', feature='vector', num_inference_steps=1),
}


@pytest.mark.parametrize('neck', NECKS.values(), ids=NECKS)
def test_images_without_objects(ready, neck):
    model = make(ready, neck=neck)
    logged = step(model, [0, 0])
    assert all(value.isfinite() for value in logged.values())
    if neck and neck['type'] == 'ClassColumnsNeck':
        assert logged['distill.boxes.loss_kd'] == 0
    for parameter in model.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


def without_proposals(model):
    """No box is proposed, and none is an object: none is sampled."""
    head = model.student.rpn_head
    predict = head.loss_and_predict

    def nothing(*args, **kwargs):
        losses, proposals = predict(*args, **kwargs)
        return losses, [p[:0] for p in proposals]

    head.loss_and_predict = nothing


@pytest.mark.parametrize('neck', NECKS.values(), ids=NECKS)
def test_step_without_any_box_adds_nothing_and_touches_all(ready, neck):
    model = make(ready, neck=neck)
    without_proposals(model)
    logged = step(model, [0, 0])
    assert logged['distill.boxes.loss_kd'] == 0
    assert all(value.isfinite() for value in logged.values())
    for parameter in model.distill.parameters():
        assert parameter.grad is not None and not parameter.grad.any()


def test_cascade_that_stops_without_boxes(ready):
    last = 'roi_head.bbox_head.2.fc_reg'
    model = make(ready, 'cascade', at=last)
    without_proposals(model)
    logged = step(model, [0, 0])
    assert all(value.isfinite() for value in logged.values())
    logged = step(make(ready, 'cascade', at=last))
    assert logged['distill.boxes.loss_kd'] > 0


def test_box_counts_may_change(ready):
    model = make(ready, neck=NECKS['DiffKD'])
    counts = set()
    for boxes in ([1, 9], [0, 2], [30, 30]):
        rois = []
        record(model.student.roi_head.bbox_roi_extractor, rois, inputs=True)
        logged = step(model, boxes)
        counts.add(len(rois[0][1]))
        assert logged['distill.boxes.loss_kd'] > 0
    assert len(counts) > 1


def test_our_part_of_the_step_does_not_wait(ready):
    """What mmdet reads itself, in its RoI extractor, is not ours to mend."""
    model = make(
        ready,
        'faster',
        'cascade',
        student_at=REGRESSED,
        teacher_at=FIRST_STAGE,
        neck=dict(type='ClassColumnsNeck'),
    )
    (entry,) = model.distill.values()
    forward = entry.forward

    def watched(students, teachers, *rest):
        with NoSynchronisation():
            losses, metrics = forward(students, teachers, *rest)
            torch.autograd.grad(losses['loss_kd'], students, retain_graph=True)
        return losses, metrics

    entry.forward = watched
    step(model)


def test_entry_that_is_off_runs_no_head_of_the_teacher(ready):
    model = make(
        ready,
        entries=dict(
            pyramid=dict(at='neck[0]', loss=dict(type='MSELoss')),
            boxes=boxes_entry(weight=0.0),
        ),
    )
    ran = []
    record(model.teacher.network.roi_head.bbox_head, ran)
    logged = step(model)
    assert not ran and logged['distill.pyramid.loss_kd'] > 0


def test_nothing_is_kept_of_a_step(ready):
    model = make(ready)
    step(model)
    for head in model._sampled_boxes._heads.values():
        assert not head.on
        assert (head.boxes, head.labels, head._extracted) == (None,) * 3


def test_labels_without_a_roi_head_are_refused(build):
    entries = dict(
        pyramid=dict(at='neck[0]', loss=dict(type='RoISpyLoss')),
    )
    with pytest.raises(ValueError, match='has no tap in a RoI head'):
        build(tiny_detectors.distiller('faster', entries))


def test_path_into_a_cascade_without_its_stage_lists_the_stages(build):
    with pytest.raises(TapError, match='roi_head.bbox_head.0.fc_reg'):
        build(
            tiny_detectors.distiller(
                'faster', dict(boxes=boxes_entry()), 'cascade'
            )
        )


@pytest.mark.parametrize('switch', ['fold_batch_norm', 'channels_last'])
def test_fast_teacher(ready, switch):
    config = tiny_detectors.distiller(
        'faster', dict(boxes=boxes_entry(loss=dict(type='RoISpyLoss')))
    )
    config['teacher'][switch] = True
    logged = step(ready(config))
    assert logged['distill.boxes.loss_kd'] > 0


def test_pass_over_the_data_is_refused(ready):
    model = make(ready, loss=dict(type='RoIPreparingLoss'))
    with pytest.raises(ValueError, match='no student samples boxes'):
        model.prepare(lambda: iter([torch.zeros(1, 3, 64, 64)]))


def test_panels_leave_boxes_out(ready):
    fpn = dict(
        at='neck[0]',
        neck=dict(type='DiffKDNeck', num_inference_steps=1),
        loss=dict(type='MSELoss'),
    )
    boxes = boxes_entry(neck=NECKS['DiffKD'])
    model = make(ready, entries=dict(fpn=fpn, boxes=boxes))
    assert set(model.trajectories(torch.rand(2, 3, 64, 64))) == {'fpn'}
