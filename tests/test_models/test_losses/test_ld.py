import re
from pathlib import Path

import pytest
import tiny_detectors
import torch
from mmdet.models.losses import KnowledgeDistillationKLDivLoss

from mmdiffkd.models.losses import LDLoss
from mmdiffkd.models.losses.ld import inside_boxes

NONE = torch.zeros(0, 4)
IMAGE = 40, 32


def boxes(*rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32)


BOXES = [boxes([8, 4, 30, 20], [0, 0, 9, 40]), NONE, boxes([1, 1, 31, 39])]


def by_hand(given, image, height, width) -> torch.Tensor:
    """The definition, position by position."""
    mask = torch.zeros(len(given), height, width, dtype=torch.bool)
    for i, rows in enumerate(given):
        for x1, y1, x2, y2 in rows.tolist():
            for y in range(height):
                for x in range(width):
                    center_x = (x + 0.5) * image[1] / width
                    center_y = (y + 0.5) * image[0] / height
                    inside = x1 < center_x < x2 and y1 < center_y < y2
                    mask[i, y, x] |= inside
    return mask


@pytest.mark.parametrize('size', [(5, 4), (10, 8), (1, 1)])
def test_inside_boxes(size):
    found = inside_boxes(BOXES, IMAGE, size)
    assert torch.equal(found, by_hand(BOXES, IMAGE, *size))
    assert found.any() and not found[1].any()


def test_a_boxs_first_axis_is_the_maps_second():
    (found,) = inside_boxes([boxes([16, 0, 32, 8])], (32, 32), (4, 4))
    assert found.nonzero().tolist() == [[0, 2], [0, 3]]


def test_boxes_outside_upside_down_and_between_centers():
    given = boxes([-50, -50, -10, -10], [33, 33, 20, 20], [5, 5, 11, 11])
    assert not inside_boxes([given], (64, 64), (8, 8)).any()


@pytest.fixture
def pair():
    """Of 4 sides with 7 bins."""
    return 5 * torch.randn(2, 3, 28, 5, 4, dtype=torch.float64)


def rows(maps: torch.Tensor) -> torch.Tensor:
    """As mmdet's LDHead has them: a row for each side of each position."""
    return maps.permute(0, 2, 3, 1).reshape(-1, 7)


def test_all_positions_are_mmdets_loss(pair):
    expected = KnowledgeDistillationKLDivLoss(loss_weight=0.25, T=10)
    torch.testing.assert_close(
        LDLoss(region='all')(*pair),
        expected(*map(rows, pair)),
        rtol=1e-12,
        atol=0,
    )


@pytest.mark.parametrize('tau', [1, 10])
def test_positions_in_boxes_are_mmdets_weighted_loss(pair, tau):
    mask = by_hand(BOXES, IMAGE, 5, 4).flatten()
    positions = mask.sum().item()
    # As LDHead calls it, four sides a position, a weight a row.
    total = KnowledgeDistillationKLDivLoss(loss_weight=3.0, T=tau)(
        *map(rows, pair),
        weight=mask[:, None].expand(-1, 4).reshape(-1),
        reduction_override='sum',
    )
    found = LDLoss(tau=tau, loss_weight=3.0)(
        *pair, gt_bboxes=BOXES, batch_input_shape=IMAGE
    )
    assert 0 < positions < len(mask)
    torch.testing.assert_close(
        found, total / (4 * positions), rtol=1e-12, atol=0
    )


def test_only_positions_in_boxes_get_a_gradient(pair):
    student = pair[0].requires_grad_()
    LDLoss()(
        student, pair[1], gt_bboxes=BOXES, batch_input_shape=IMAGE
    ).backward()
    touched = (student.grad != 0).any(1)
    assert torch.equal(touched, by_hand(BOXES, IMAGE, 5, 4))


def test_a_batch_without_objects(pair):
    student = pair[0].requires_grad_()
    loss = LDLoss()(
        student, pair[1], gt_bboxes=[NONE] * 3, batch_input_shape=IMAGE
    )
    assert loss == 0
    loss.backward()
    assert torch.equal(student.grad, torch.zeros_like(student))


def test_what_it_asks_for(pair):
    assert LDLoss().asks_for == ('gt_bboxes', 'batch_input_shape')
    assert LDLoss(region='all').asks_for == ()
    with pytest.raises(ValueError, match='needs gt_bboxes and batch_input'):
        LDLoss()(*pair)


def test_no_gradient_to_the_teacher(pair):
    student, teacher = (x.requires_grad_() for x in pair)
    LDLoss(region='all')(student, teacher).backward()
    assert teacher.grad is None


@pytest.mark.parametrize(
    'arguments, named',
    [
        ({'tau': 0}, 'tau=0'),
        ({'groups': 0}, 'groups=0'),
        ({'region': 'vlr'}, "region='vlr' must be 'boxes' or 'all'"),
    ],
)
def test_arguments_out_of_range(arguments, named):
    with pytest.raises(ValueError, match=named):
        LDLoss(**arguments)


# In a detector: five levels, 17 bins a side.
SCALED = [f'bbox_head.scales.{i}' for i in range(5)]


def make(ready, at, **loss):
    entry = dict(at=at, loss=dict(type='LDLoss', **loss))
    return ready(tiny_detectors.distiller('gfl', dict(sides=entry)))


@pytest.mark.parametrize('at', ['bbox_head.gfl_reg', SCALED])
@pytest.mark.parametrize('region', ['boxes', 'all'])
def test_trains_a_detector(ready, at, region):
    model = make(ready, at, region=region)
    assert [s[0][1] for s in model.distill.sides.shapes] == [68] * 5
    data = tiny_detectors.batch(model, [2, 1])
    loss = model(**data, mode='loss')['distill.sides.loss_kd']
    assert loss > 0
    # Of the distillation alone, without the task's losses.
    (gradient,) = torch.autograd.grad(
        loss, model.student.bbox_head.gfl_reg.weight
    )
    assert gradient.any() and gradient.isfinite().all()
    logged = tiny_detectors.step(model, data)
    assert all(value.isfinite() for value in logged.values())


def test_the_documented_entries_train(ready):
    """A sigmoid a class, and distributions for the sides of a box."""
    page = Path(__file__).parents[3] / 'docs/losses.md'
    block, *_ = re.findall(
        r'^```python\n(.*?)^```', page.read_text(), re.M | re.S
    )
    values = {}
    exec(block, values)
    model = ready(tiny_detectors.distiller('gfl', values['distill']))
    logged = tiny_detectors.step(model, tiny_detectors.batch(model, [2, 1]))
    for name in ('classes', 'sides'):
        loss = logged[f'distill.{name}.loss_kd']
        assert loss > 0 and loss.isfinite()


def test_images_without_objects_in_a_detector(ready):
    model = make(ready, SCALED)
    logged = tiny_detectors.step(model, tiny_detectors.batch(model, [0, 0]))
    assert logged['distill.sides.loss_kd'] == 0
    for parameter in model.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


def test_behind_the_scales_is_what_the_head_decodes(ready):
    model = make(ready, SCALED, region='all')
    with torch.no_grad():
        for network in (model.student, model.teacher.network):
            for i, scale in enumerate(network.bbox_head.scales):
                scale.scale.fill_(1.0 + 0.5 * i)
    data = tiny_detectors.batch(model)
    with torch.no_grad():
        ours, theirs = (
            network.bbox_head(network.extract_feat(data['inputs']))[1]
            for network in (model.student, model.teacher.network)
        )
    mmdets = KnowledgeDistillationKLDivLoss(loss_weight=0.25, T=10)
    expected = sum(
        mmdets(*(x.permute(0, 2, 3, 1).reshape(-1, 17) for x in pair))
        for pair in zip(ours, theirs)
    )
    logged = tiny_detectors.step(model, data)
    assert logged['distill.sides.loss_kd'].item() == pytest.approx(
        expected.item(), rel=1e-4
    )
