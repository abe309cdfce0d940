import pytest
import torch

from mmdiffkd.models.diffusion import AdaptiveNoiseMatching

CASES = [('map', (4, 12, 5, 7)), ('vector', (4, 12))]


@pytest.mark.parametrize('feature, shape', CASES)
def test_mixes_by_gamma(feature, shape):
    matching = AdaptiveNoiseMatching(12, feature)
    latent, noise = torch.randn(2, *shape)
    mixed, gamma = matching(latent, noise)
    assert mixed.shape == shape
    assert gamma.shape == (4,)
    assert ((gamma > 0) & (gamma < 1)).all()
    for i in range(4):
        expected = gamma[i] * latent[i] + (1 - gamma[i]) * noise[i]
        torch.testing.assert_close(mixed[i], expected)


@pytest.mark.parametrize('feature, shape', CASES)
def test_gamma_of_one_adds_no_noise(feature, shape):
    matching = AdaptiveNoiseMatching(12, feature)
    with torch.no_grad():
        matching.gate.weight.zero_()
        matching.gate.bias.copy_(torch.tensor([200.0, 0.0]))
    latent, noise = torch.randn(2, *shape)
    mixed, gamma = matching(latent, noise)
    assert torch.equal(gamma, torch.ones(4))
    assert torch.equal(mixed, latent)


def test_gamma_depends_on_the_sample_alone():
    matching = AdaptiveNoiseMatching(12).eval()
    latent, noise = torch.randn(2, 4, 12, 5, 7)
    _, gamma = matching(latent, noise)
    _, alone = matching(latent[2:3], -noise[2:3])
    torch.testing.assert_close(alone, gamma[2:3])
    assert gamma.std() > 0


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('feature, shape', CASES)
def test_half_precision_has_gamma_in_float32(feature, shape, dtype):
    matching = AdaptiveNoiseMatching(12, feature).to(dtype)
    latent, noise = torch.randn(2, *shape).to(dtype)
    mixed, gamma = matching(latent, noise)
    assert gamma.dtype == mixed.dtype == torch.float32


def test_widths():
    matching = AdaptiveNoiseMatching(16)
    assert matching.features.block[0].out_channels == 2
    matching = AdaptiveNoiseMatching(3)
    assert matching.features.block[0].out_channels == 1
    matching = AdaptiveNoiseMatching(16, 'vector')
    assert matching.features[0].out_features == 32


def test_unknown_feature():
    with pytest.raises(ValueError, match="feature='token'.*'map'.*'vector'"):
        AdaptiveNoiseMatching(16, 'token')
