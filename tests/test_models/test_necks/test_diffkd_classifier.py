import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmdiffkd.models.necks import DiffKDClassifierNeck, DiffKDNeck

SIZES = {'map': (5, 7), 'vector': ()}
both_features = pytest.mark.parametrize('feature', SIZES)


def make(feature, **kwargs):
    torch.manual_seed(0)
    neck = DiffKDClassifierNeck(6, 12, feature=feature, **kwargs)
    student, teacher = (
        torch.randn(4, c, *SIZES[feature], requires_grad=True) for c in (6, 12)
    )
    head = nn.Linear(12, 5).requires_grad_(False)
    drawn = neck.draw(student, teacher, torch.Generator().manual_seed(1))
    return neck, student, teacher, head, drawn


@both_features
def test_logits_of_what_diffkd_compares(feature):
    neck, student, teacher, head, drawn = make(feature)
    plain = DiffKDNeck(6, 12, feature=feature)
    plain.load_state_dict(neck.state_dict())
    expected = plain(student, teacher, **drawn)
    aligned = neck(student, teacher, head, **drawn)
    for logits, tensor in zip(aligned[:2], expected[:2]):
        pooled = tensor.mean(dim=(2, 3)) if feature == 'map' else tensor
        assert logits.shape == (4, 5)
        torch.testing.assert_close(logits, head(pooled))
    torch.testing.assert_close(aligned.losses, expected.losses)
    torch.testing.assert_close(aligned.metrics, expected.metrics)


@both_features
def test_where_gradients_flow(feature):
    neck, student, teacher, head, drawn = make(feature)
    logits, target, *_ = neck(student, teacher, head, **drawn)
    assert not target.requires_grad
    F.kl_div(
        logits.log_softmax(1), target.softmax(1), reduction='batchmean'
    ).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None
    assert all(p.grad is None for p in head.parameters())
    assert all(p.grad is not None for p in neck.parameters())


def test_classifier_is_not_kept():
    neck, student, teacher, head, drawn = make('map')
    state = set(neck.state_dict())
    neck(student, teacher, head, **drawn)
    assert set(neck.state_dict()) == state
    assert head not in list(neck.modules())


def test_latents_that_no_classifier_reads_are_refused():
    with pytest.raises(TypeError, match='latent_channels'):
        DiffKDClassifierNeck(6, 12, latent_channels=8)


@pytest.mark.parametrize(
    'saving, same', [({'with_cp': True}, True), ({'grad_steps': 1}, False)]
)
def test_savings_reach_the_walk(saving, same):
    gradients = []
    for kwargs in ({}, saving):
        neck, student, teacher, head, drawn = make('map', **kwargs)
        assert neck.with_cp is kwargs.get('with_cp', False)
        logits, *_ = neck(student, teacher, head, **drawn)
        weight = next(p for p in neck.denoiser.parameters() if p.dim() == 4)
        (gradient,) = torch.autograd.grad(logits.square().sum(), weight)
        gradients.append((logits.detach(), gradient))
    (logits, gradient), (saved_logits, saved_gradient) = gradients
    torch.testing.assert_close(saved_logits, logits)
    assert torch.allclose(saved_gradient, gradient, rtol=1e-4) == same
