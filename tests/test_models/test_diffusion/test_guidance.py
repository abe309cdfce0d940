from math import sqrt

import pytest
import torch
from torch import nn

from mmdiffkd.models.diffusion import DDIMSampler, MLPDenoiser, NoiseSchedule
from mmdiffkd.models.diffusion.guidance import (
    ClassifierGuidance,
    log_probability_gradient,
)

SCHEDULE = NoiseSchedule()
SAMPLER = DDIMSampler(schedule=SCHEDULE)
LABELS = torch.tensor([2, 0, 4, 2])


def make(dtype=torch.float64, scale=1.5, classes=5, channels=6):
    """Guidance, a denoiser in eval mode, a linear classifier, a latent."""
    guidance = ClassifierGuidance(scale, SCHEDULE, SAMPLER.timesteps)
    denoiser = MLPDenoiser(channels).to(dtype).eval()
    classifier = nn.Linear(channels, classes, dtype=dtype)
    classifier.requires_grad_(False)
    return guidance, denoiser, classifier, torch.randn(4, 6, dtype=dtype)


def test_formula_with_the_gradient_of_a_linear_classifier():
    guidance, denoiser, classifier, latent = make()
    onehot = nn.functional.one_hot(LABELS, 5)
    probabilities = classifier(latent).softmax(dim=1)
    gradient = (onehot - probabilities) @ classifier.weight
    guided = guidance.guide(denoiser, classifier, LABELS)
    for timestep in SAMPLER.timesteps:
        alpha_bar = SCHEDULE.alpha_bars[timestep].double().item()
        expected = (
            denoiser(latent, timestep) - 1.5 * sqrt(1 - alpha_bar) * gradient
        )
        torch.testing.assert_close(
            guided(latent, timestep), expected, rtol=0, atol=1e-12
        )


def test_any_classifier_by_finite_differences():
    _, _, _, latent = make()
    classifier = nn.Sequential(
        nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 5), nn.Softplus()
    ).double()

    def log_probability(latent):
        chosen = classifier(latent).log_softmax(dim=1)[range(4), LABELS]
        return chosen.sum().item()

    gradient = log_probability_gradient(classifier, latent, LABELS)
    for row, column in [(0, 0), (1, 5), (3, 2)]:
        step = torch.zeros_like(latent)
        step[row, column] = 1e-6
        difference = log_probability(latent + step) - log_probability(
            latent - step
        )
        assert gradient[row, column].item() == pytest.approx(
            difference / 2e-6, abs=1e-8
        )


def test_each_sample_has_its_own_gradient():
    _, _, classifier, latent = make()
    together = log_probability_gradient(classifier, latent, LABELS)
    for i in range(4):
        alone = log_probability_gradient(
            classifier, latent[i : i + 1], LABELS[i : i + 1]
        )
        torch.testing.assert_close(together[i : i + 1], alone)


def test_scale_0_is_the_denoiser_itself():
    guidance, denoiser, classifier, _ = make(scale=0)
    assert guidance.guide(denoiser, classifier, LABELS) is denoiser


def test_the_walk_arrives_where_the_classifier_looks():
    probabilities = []
    for scale in (0, 1, 10):
        torch.manual_seed(1)
        guidance, denoiser, classifier, latent = make(scale=scale)
        clean = SAMPLER.sample(
            guidance.guide(denoiser, classifier, LABELS), latent
        )
        found = classifier(clean).softmax(dim=1)[range(4), LABELS]
        probabilities.append(found.mean().item())
    assert probabilities[0] < probabilities[1] < probabilities[2]


def test_gradient_is_a_constant():
    guidance, denoiser, classifier, latent = make()
    latent.requires_grad_()
    gradient = log_probability_gradient(classifier, latent, LABELS)
    assert not gradient.requires_grad
    results = []
    for function in (denoiser, guidance.guide(denoiser, classifier, LABELS)):
        (result,) = torch.autograd.grad(function(latent, 400).sum(), latent)
        results.append(result)
    assert torch.equal(*results)


def test_classifier_gets_no_gradient():
    guidance, denoiser, classifier, latent = make()
    classifier.requires_grad_(True)
    latent.requires_grad_()
    guided = guidance.guide(denoiser, classifier, LABELS)
    guided(latent, 400).sum().backward()
    assert all(p.grad is None for p in classifier.parameters())


def test_under_no_grad():
    _, _, classifier, latent = make()
    expected = log_probability_gradient(classifier, latent, LABELS)
    with torch.no_grad():
        gradient = log_probability_gradient(classifier, latent, LABELS)
    assert expected.abs().sum() > 0
    assert torch.equal(gradient, expected)


def test_inference_mode_is_refused():
    _, _, classifier, latent = make()
    with (
        torch.inference_mode(),
        pytest.raises(RuntimeError, match=r'use torch\.no_grad'),
    ):
        log_probability_gradient(classifier, latent, LABELS)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_float32_under_autocast(dtype):
    _, _, classifier, latent = make(torch.float32)
    expected = log_probability_gradient(classifier, latent, LABELS)
    with torch.autocast('cpu', dtype):
        gradient = log_probability_gradient(classifier, latent, LABELS)
    assert torch.equal(gradient, expected)


def test_finite_for_large_logits():
    _, _, classifier, latent = make(torch.float32)
    classifier.weight.mul_(1e4)
    assert (
        log_probability_gradient(classifier, latent, LABELS).isfinite().all()
    )


@pytest.mark.parametrize('scale', [-1, float('nan')])
def test_scale_out_of_range(scale):
    with pytest.raises(ValueError, match=f'guidance_scale={scale}'):
        ClassifierGuidance(scale, SCHEDULE, [0])
