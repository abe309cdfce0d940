import pytest
import torch

from mmdiffkd.models.diffusion import LinearAutoencoder


@pytest.mark.parametrize(
    'feature, size', [('map', (5, 7)), ('map', (1, 1)), ('vector', ())]
)
@pytest.mark.parametrize('latent_channels', [3, 20])
def test_shapes(feature, size, latent_channels):
    autoencoder = LinearAutoencoder(12, latent_channels, feature)
    code = autoencoder.encode(torch.randn(4, 12, *size))
    assert code.shape == (4, latent_channels, *size)
    assert autoencoder.decode(code).shape == (4, 12, *size)


def test_code_has_unit_variance_at_the_start():
    autoencoder = LinearAutoencoder(12, 8)
    code = autoencoder.encode(50 + 9 * torch.randn(4, 12, 16, 16))
    torch.testing.assert_close(
        code.mean((0, 2, 3)), torch.zeros(8), rtol=0, atol=1e-4
    )
    torch.testing.assert_close(
        code.var((0, 2, 3)), torch.ones(8), rtol=0, atol=1e-2
    )


def test_is_linear_in_eval_mode():
    autoencoder = LinearAutoencoder(12, 8).eval()
    a, b = torch.randn(2, 4, 12, 3, 3)

    def run(feature):
        return autoencoder.decode(autoencoder.encode(feature))

    torch.testing.assert_close(
        run(a + b), run(a) + run(b) - run(torch.zeros_like(a))
    )


def test_unknown_feature():
    with pytest.raises(ValueError, match="feature='token'"):
        LinearAutoencoder(16, 8, 'token')
