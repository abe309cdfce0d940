import pytest
import torch
from torch import nn

from mmdiffkd.models.necks import MGDNeck


def make(student=6, teacher=9, size=(5, 7), batch_size=4, **arguments):
    neck = MGDNeck(student, teacher, **arguments)
    features = [torch.randn(batch_size, c, *size) for c in (student, teacher)]
    generator = torch.Generator().manual_seed(1)
    return neck, *features, neck.draw(*features, generator)['mask']


def test_layers():
    neck = MGDNeck(6, 9)
    assert neck.align.weight.shape == (9, 6, 1, 1)
    first, activation, second = neck.generation
    assert isinstance(activation, nn.ReLU)
    for convolution in (first, second):
        assert convolution.weight.shape == (9, 9, 3, 3)
        assert convolution.padding == (1, 1)
    assert isinstance(MGDNeck(9, 9).align, nn.Identity)


def test_generates_from_what_is_left():
    neck, student, teacher, mask = make()
    aligned = neck(student, teacher, mask)
    expected = neck.generation(neck.align(student) * mask)
    assert torch.equal(aligned.student, expected)
    assert torch.equal(aligned.teacher, teacher)
    # What is hidden has no influence.
    noise = 100 * torch.randn_like(student) * (1 - mask)
    torch.testing.assert_close(
        neck(student + noise, teacher, mask).student, aligned.student
    )
    blind = neck(student, teacher, 0 * mask).student
    assert not torch.equal(blind, aligned.student)


@pytest.mark.parametrize(
    'mask_on_channel, shape', [(False, (4, 1, 5, 7)), (True, (4, 9, 1, 1))]
)
def test_mask_is_reproducible(mask_on_channel, shape):
    neck, student, teacher, mask = make(mask_on_channel=mask_on_channel)
    assert mask.shape == shape
    assert mask.dtype == student.dtype
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    state = torch.get_rng_state()
    again = neck.draw(student, teacher, torch.Generator().manual_seed(1))
    other = neck.draw(student, teacher, torch.Generator().manual_seed(2))
    assert torch.equal(again['mask'], mask)
    assert not torch.equal(other['mask'], mask)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize('share', [0, 0.15, 0.65])
@pytest.mark.parametrize('mask_on_channel', [False, True])
def test_share_that_is_hidden(share, mask_on_channel):
    *_, mask = make(
        teacher=500,
        size=(50, 50),
        batch_size=20,
        lambda_mgd=share,
        mask_on_channel=mask_on_channel,
    )
    assert 1 - mask.mean().item() == pytest.approx(share, abs=0.02)


def test_a_mask_left_out_is_drawn():
    neck, student, teacher, _ = make()
    first = neck(student, teacher).student
    assert not torch.equal(neck(student, teacher).student, first)


@pytest.mark.parametrize('share', [-0.1, 1, 1.5])
def test_share_out_of_range(share):
    with pytest.raises(ValueError, match=f'lambda_mgd={share}'):
        MGDNeck(6, 9, lambda_mgd=share)


def test_errors():
    with pytest.raises(ValueError, match='student_channels=None'):
        MGDNeck(teacher_channels=9)
    with pytest.raises(ValueError, match='takes maps'):
        MGDNeck(6, 9)(torch.ones(2, 6), torch.ones(2, 9))
