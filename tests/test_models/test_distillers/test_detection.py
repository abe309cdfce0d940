"""Detectors of mmdet under a distiller; two-stage heads: `test_rois.py`."""

import pytest
import tiny_detectors
import tiny_recipes
import torch
from mmengine.logging import MessageHub

PYRAMID = dict(
    at='neck[:]',
    neck=dict(type='DiffKDNeck', num_inference_steps=2),
    loss=dict(type='MSELoss', loss_weight=5.0),
)


@pytest.fixture(autouse=True)
def epoch():
    """A runner tells TOOD's head how far training is."""
    MessageHub.get_current_instance().update_info('epoch', 0)


def make(ready, name='retinanet', teacher=None, **entries):
    return ready(tiny_detectors.distiller(name, entries, teacher))


def step(model, *boxes, data=None, **batch):
    """What a training step logs; all that it leaves is finite."""
    data = data or tiny_detectors.batch(model, *boxes, **batch)
    logged = tiny_detectors.step(model, data)
    for name, value in logged.items():
        assert value.isfinite(), name
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    return logged


HEADS = {
    'retinanet': ('bbox_head.retina_reg', 5),
    'fcos': ('bbox_head.conv_reg', 5),
    'gfl': ('bbox_head.gfl_reg', 5),
    'reppoints': ('bbox_head.reppoints_pts_refine_out', 5),
    'tood': ('bbox_head.tood_reg', 5),
    'yolox': ('bbox_head.multi_level_conv_reg.1', 1),
    'rtmdet': ('bbox_head.rtm_reg.0', 1),
}


@pytest.mark.parametrize('name', HEADS)
def test_pyramid_and_regression_of_one_stage_heads(ready, name):
    tap, calls = HEADS[name]
    boxes = dict(at=tap, loss=dict(type='SmoothL1Loss'))
    model = make(ready, name, fpn=PYRAMID, boxes=boxes)
    assert len(model.distill.boxes.shapes) == calls
    levels = 3 if name in ('yolox', 'rtmdet') else 5
    assert len(model.distill.fpn.necks) == levels
    found = []
    model.student.get_submodule(tap).register_forward_hook(
        lambda module, args, output: found.append(output)
    )
    logged = step(model)
    assert len(found) == calls
    for entry in ('fpn', 'boxes'):
        assert logged[f'distill.{entry}.loss_kd'] > 0
    assert any(p.grad.any() for p in model.student.neck.parameters())


def test_all_locations_of_all_levels_count(ready):
    boxes = dict(at='bbox_head.retina_reg', loss=dict(type='SmoothL1Loss'))
    model = make(ready, boxes=boxes)
    data = tiny_detectors.batch(model)
    with torch.no_grad():
        ours, theirs = (
            network.bbox_head(network.extract_feat(data['inputs']))[1]
            for network in (model.student.train(), model.teacher.network)
        )
    expected = sum(
        torch.nn.functional.smooth_l1_loss(*pair) for pair in zip(ours, theirs)
    )
    logged = tiny_detectors.step(model, data)
    assert logged['distill.boxes.loss_kd'].item() == pytest.approx(
        expected.item(), rel=1e-5
    )


@pytest.mark.parametrize('name', ['faster', 'mask', 'cascade', 'detr'])
def test_pyramid_of_the_others(ready, name):
    model = make(ready, name, fpn=PYRAMID)
    logged = step(model, with_mask=name == 'mask')
    assert logged['distill.fpn.loss_kd'] > 0


def test_head_that_takes_more_than_features_runs_with_its_network(ready):
    entry = dict(at='decoder.layers.0', layout='NC', loss=dict(type='MSELoss'))
    model = ready(tiny_detectors.distiller('detr', dict(entry=entry)))
    (_, teacher), *_ = model.distill.entry.shapes
    assert teacher[1] == 32
    assert step(model)['distill.entry.loss_kd'] > 0


def test_one_neck_for_all_levels(ready):
    model = make(ready, fpn={**PYRAMID, 'shared': True})
    assert len(model.distill.fpn.necks) == 1
    step(model)


# Bad input


def test_other_numbers_of_levels_are_refused(build):
    config = tiny_detectors.distiller('retinanet', dict(fpn=PYRAMID))
    model = config['teacher']['config']['model']
    model['neck']['num_outs'] = 4
    with pytest.raises(ValueError, match='5 tensors.* gives 4.*neck.0:4'):
        build(config)
    config['distill'] = dict(fpn={**PYRAMID, 'at': 'neck[0:4]'})
    assert len(build(config).distill.fpn.shapes) == 4


def test_other_strides_are_resized_and_said(ready):
    model = make(ready, 'retinanet', 'faster', fpn=PYRAMID)
    lines = model.distill.fpn.describe()
    assert all("student's map resized" in line for line in lines[:4])
    step(model)


def test_teacher_of_another_task(build, ready):
    config = tiny_detectors.distiller('retinanet', dict(fpn=PYRAMID))
    config['teacher'] = tiny_recipes.teacher()
    with pytest.raises(ValueError, match='Pick equal numbers with slices'):
        build(config)
    config['distill'] = dict(feature={**PYRAMID, 'at': 'backbone[-1]'})
    step(ready(config))


FGD = dict(at='neck[:]', loss=dict(type='FGDLoss', temp=0.5))
FGD_BEHIND = {**PYRAMID, 'loss': dict(type='FGDLoss')}


@pytest.mark.parametrize('entry', [PYRAMID, FGD, FGD_BEHIND])
@pytest.mark.parametrize('boxes', [[0, 0], [0, 3]])
def test_images_without_objects(ready, entry, boxes):
    model = make(ready, fpn=entry)
    logged = step(model, boxes)
    assert logged['distill.fpn.loss_kd'] > 0


ODD_BOXES = {
    'outside': [[-50.0, -50.0, -10.0, -10.0], [70.0, 80.0, 200.0, 90.0]],
    'across the edge': [[-5.0, -5.0, 5.0, 5.0], [60.0, 60.0, 90.0, 90.0]],
    'larger': [[-100.0, -100.0, 300.0, 300.0]],
    'empty': [[10.0, 10.0, 10.0, 10.0]],
    'upside down': [[33.0, 33.0, 20.0, 20.0], [33.0, 33.0, 1.0, 1.0]],
}


@pytest.mark.parametrize('kind', ODD_BOXES)
@pytest.mark.parametrize('entry', [FGD, FGD_BEHIND])
def test_odd_boxes(ready, entry, kind):
    model = make(ready, fpn=entry)
    data = tiny_detectors.batch(model, [2, 2])
    boxes = torch.tensor(ODD_BOXES[kind])
    student = model.student.forward
    for sample in data['data_samples']:
        instances = sample.gt_instances[: len(boxes)]
        instances.bboxes = boxes.clone()
        sample.gt_instances = instances
    # Whether the detector's own losses bear it is the detector's affair.
    model.student.forward = lambda *args, **kwargs: {
        'loss_own': student(*args, mode='tensor')[0][0].sum() * 0
    }
    losses = tiny_detectors.step(model, data)
    assert losses['distill.fpn.loss_kd'].isfinite()
    for parameter in model.distill.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


def test_padded_images_and_several_sizes(ready):
    model = make(ready, fpn=FGD)
    for sizes in ([(64, 40), (50, 64)], [(96, 128), (32, 32)]):
        step(model, sizes=sizes)


# What a recipe may switch on


def test_activation_checkpointing_and_frozen_stages(ready):
    for changes in (dict(with_cp=True), dict(frozen_stages=2)):
        config = tiny_detectors.distiller('faster', dict(fpn=PYRAMID))
        config['student']['backbone'].update(changes)
        model = ready(config)
        step(model)
        frozen = [
            n for n, p in model.named_parameters() if not p.requires_grad
        ]
        assert bool(frozen) == ('frozen_stages' in changes)


def test_mixed_precision(ready):
    model = make(ready, fpn=PYRAMID)
    # The student's own convolution with stride 2 over one pixel would get
    # memory that nobody wrote as its gradient (docs/faq.md, "Training").
    data = tiny_detectors.batch(model, sizes=[(128, 128)] * 2)
    with torch.autocast('cpu', torch.bfloat16):
        logged = step(model, data=data)
    assert logged['distill.fpn.loss_kd'] > 0


@pytest.mark.gpu
def test_mixed_precision_of_two_stages(ready):
    """On a CPU mmcv suppresses boxes in float32 alone."""
    boxes = dict(
        at='roi_head.bbox_head.fc_reg',
        neck=dict(type='ClassColumnsNeck'),
        loss=dict(type='SmoothL1Loss'),
    )
    model = make(ready, 'faster', fpn=PYRAMID, boxes=boxes).cuda()
    with torch.autocast('cuda', torch.float16):
        logged = step(model)
    assert logged['distill.boxes.loss_kd'] > 0


def test_one_class_an_image_is_not_asked_of_detectors(ready):
    entry = dict(at='roi_head.bbox_head.fc_cls', loss=dict(type='DKDLoss'))
    with pytest.raises(ValueError, match='`gt_labels`.* for detection'):
        make(ready, 'faster', classes=entry)
