import pytest
import torch
from torch import nn

from mmdiffkd.models.losses import FGDLoss
from mmdiffkd.models.losses.fgd import GlobalContext, foreground
from mmdiffkd.registry import MODELS

NONE = torch.zeros(0, 4)


def boxes(*rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32)


def by_hand(box, sizes, height, width) -> torch.Tensor:
    """The definition, pixel by pixel."""
    mask = torch.zeros(len(box), height, width)
    for image, (rows, size) in enumerate(zip(box, sizes)):
        scale = torch.tensor([width / size[1], height / size[0]]).repeat(2)
        for row in rows * scale:
            left, top = (int(x) for x in row[:2].floor())
            right, bottom = (int(x) for x in row[2:].ceil())
            area = (right + 1 - left) * (bottom + 1 - top)
            for y in range(height):
                for x in range(width):
                    if top <= y <= bottom and left <= x <= right:
                        mask[image, y, x] = max(mask[image, y, x], 1 / area)
    return mask


def test_foreground():
    given = [
        boxes([0, 0, 20, 20], [10, 10, 60, 40], [63, 3, 64, 3]),
        NONE,
        boxes([33, 1, 90, 17]),
    ]
    sizes = [(48, 64), (48, 64), (40, 96)]
    found = foreground(given, sizes, (6, 8))
    torch.testing.assert_close(found, by_hand(given, sizes, 6, 8))
    assert found[1].abs().sum() == 0


def test_a_boxs_first_axis_is_the_maps_second():
    found = foreground([boxes([16, 0, 32, 8])], [(32, 32)], (4, 4))
    assert found[0].nonzero().tolist() == [
        [y, x] for y in (0, 1) for x in (2, 3)
    ]
    # Covered are rows 0 to 1 and columns 2 to 4, of which the last is cut.
    assert found.max().item() == pytest.approx(1 / 6)


def test_the_smallest_box_counts():
    found = foreground(
        [boxes([0, 0, 16, 16], [4, 4, 5, 5])], [(16, 16)], (4, 4)
    )
    assert found[0, 1, 1].item() == pytest.approx(1 / 4)
    assert found[0, 0, 0].item() == pytest.approx(1 / 25)


@pytest.fixture
def pair():
    torch.manual_seed(0)
    return torch.randn(2, 3, 6, 4, 8)


def test_terms_against_their_definitions(pair):
    student, teacher = pair
    given = [boxes([0, 0, 20, 20]), boxes([8, 0, 12, 31], [1, 1, 2, 2]), NONE]
    terms = FGDLoss(6).terms(student, teacher, given, [(32, 64)] * 3)

    def attention(feature):
        spatial = (feature.abs().mean(1) / 0.5).flatten(1).softmax(1)
        channel = (feature.abs().mean((2, 3)) / 0.5).softmax(1)
        return 32 * spatial.reshape(3, 4, 8), 6 * channel

    spatial_S, channel_S = attention(student)
    spatial_T, channel_T = attention(teacher)
    mask = by_hand(given, [(32, 64)] * 3, 4, 8)
    background = (mask == 0).float()
    background /= background.sum((1, 2), keepdim=True)

    def focal(weight):
        weight = (weight * spatial_T)[:, None] * channel_T[..., None, None]
        weight = weight.sqrt()
        return (weight * student - weight * teacher).square().sum() / 3

    expected = {
        'fg': focal(mask),
        'bg': focal(background),
        'mask': (channel_S - channel_T).abs().sum() / 3
        + (spatial_S - spatial_T).abs().sum() / 3,
        # The contexts begin with nothing to add.
        'rela': (student - teacher).square().sum() / 3,
    }
    torch.testing.assert_close(terms, expected)


def test_weights(pair):
    given = [boxes([0, 0, 20, 20])] * 3
    loss = MODELS.build(
        {
            'type': 'FGDLoss',
            'teacher_channels': 6,
            'alpha_fgd': 2.0,
            'beta_fgd': 3.0,
            'gamma_fgd': 5.0,
            'lambda_fgd': 7.0,
            'loss_weight': 0.5,
        }
    )
    terms = loss.terms(*pair, given, [(32, 64)] * 3)
    expected = (
        2 * terms['fg'] + 3 * terms['bg'] + 5 * terms['mask']
    ) / 2 + 3.5 * terms['rela']
    torch.testing.assert_close(
        loss(*pair, given, batch_input_shape=(32, 64)), expected
    )


def test_images_without_objects(pair):
    student = pair[0].requires_grad_()
    terms = FGDLoss(6).terms(student, pair[1], [NONE] * 3, [(32, 64)] * 3)
    assert terms['fg'].item() == 0
    assert terms['bg'] > 0
    sum(terms.values()).backward()
    assert student.grad.isfinite().all()


def test_images_without_background(pair):
    whole = [boxes([0, 0, 64, 32])] * 3
    terms = FGDLoss(6).terms(*pair, whole, [(32, 64)] * 3)
    assert terms['bg'].item() == 0
    assert terms['fg'] > 0


def test_size_that_scales_the_boxes(pair):
    given = [boxes([8, 8, 24, 16])] * 3
    shapes = [(32, 64), (16, 64), (32, 48)]
    padded, released = FGDLoss(6), FGDLoss(6, scale_by='img_shape')
    assert padded.supplied == ('gt_bboxes', 'batch_input_shape')
    assert released.supplied == ('gt_bboxes', 'img_shape')
    # Where nothing is padded they agree.
    torch.testing.assert_close(
        padded(*pair, given, batch_input_shape=(32, 64)),
        released(*pair, given, img_shape=[(32, 64)] * 3),
    )
    stretched = released.terms(*pair, given, shapes)['fg']
    assert stretched != padded.terms(*pair, given, [(32, 64)] * 3)['fg']
    with pytest.raises(ValueError, match="'img_shape' needs img_shape"):
        released(*pair, given, batch_input_shape=(32, 64))
    with pytest.raises(ValueError, match='needs batch_input_shape'):
        padded(*pair, given, img_shape=shapes)


def test_contexts_are_trained_apart(pair):
    loss = FGDLoss(6)
    given = [NONE] * 3
    optimizer = torch.optim.SGD(loss.parameters(), lr=1e-3)
    before = loss.terms(*pair, given, [(32, 64)] * 3)['rela']
    for _ in range(5):
        optimizer.zero_grad()
        loss.terms(*pair, given, [(32, 64)] * 3)['rela'].backward()
        optimizer.step()
    assert all(p.grad is not None for p in loss.parameters())
    student, teacher = loss.student_context, loss.teacher_context
    pairs = zip(student.parameters(), teacher.parameters())
    assert not any(torch.equal(s, t) for s, t in pairs if s.numel() > 1)
    assert loss.terms(*pair, given, [(32, 64)] * 3)['rela'] < before


def test_context_pools_by_attention():
    context = GlobalContext(4)
    feature = torch.randn(2, 4, 3, 5)
    assert torch.equal(context(feature), feature)
    nn.init.normal_(context.transform[-1].weight)
    rows = feature.flatten(2).mT
    weight = (rows @ context.attention.weight.flatten(1).T).softmax(1)
    expected = context.transform((rows * weight).sum(1))
    added = context(feature) - feature
    torch.testing.assert_close(
        added, expected[..., None, None].expand_as(added)
    )


def test_context_of_a_single_channel():
    feature = torch.randn(2, 1, 3, 5)
    assert GlobalContext(1)(feature).shape == feature.shape


def test_other_channels():
    other = torch.ones(2, 5, 4, 4)
    with pytest.raises(ValueError, match='teacher_channels=6.*has 5'):
        FGDLoss(6).terms(other, other, [NONE] * 2, [])


@pytest.mark.parametrize(
    'arguments, named',
    [({'temp': 0}, 'temp=0'), ({'scale_by': 'pad'}, "scale_by='pad'")],
)
def test_arguments_out_of_range(arguments, named):
    with pytest.raises(ValueError, match=named):
        FGDLoss(6, **arguments)


def test_boxes_outside_and_upside_down_cover_nothing():
    given = boxes([-50, -50, -10, -10], [70, 80, 200, 90], [33, 33, 20, 20])
    assert not foreground([given], [(64, 64)], (8, 8)).any()
