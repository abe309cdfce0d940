import pytest
import torch

from mmdiffkd.models.diffusion import BottleneckDenoiser, MLPDenoiser
from mmdiffkd.registry import MODELS


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_parameters_of_the_papers_table_12():
    denoiser = BottleneckDenoiser(256)
    assert count(denoiser.prediction) == 207_872
    assert count(denoiser.time_embedding) == 327_680
    assert len(list(denoiser.parameters())) == 29


@pytest.mark.parametrize(
    'denoiser, shape',
    [
        (BottleneckDenoiser(12), (3, 12, 5, 7)),
        (BottleneckDenoiser(12), (1, 12, 1, 2)),
        (MLPDenoiser(10), (3, 10)),
    ],
)
def test_an_int_is_one_timestep_for_all(denoiser, shape):
    denoiser.eval()
    noisy = torch.randn(shape)
    timesteps = torch.full(shape[:1], 321)
    predicted = denoiser(noisy, 321)
    assert predicted.shape == shape
    torch.testing.assert_close(predicted, denoiser(noisy, timesteps))
    assert not torch.allclose(predicted, denoiser(noisy, 322))


@pytest.mark.parametrize(
    'denoiser, shape',
    [(BottleneckDenoiser(4), (2, 4, 3, 3)), (MLPDenoiser(4), (2, 4))],
)
def test_each_sample_has_its_timestep(denoiser, shape):
    denoiser.eval()
    noisy = torch.randn(shape)
    predicted = denoiser(noisy, torch.tensor([7, 900]))
    torch.testing.assert_close(predicted[:1], denoiser(noisy[:1], 7))
    torch.testing.assert_close(predicted[1:], denoiser(noisy[1:], 900))


def test_gradient_of_a_timestep_reaches_its_row():
    denoiser = BottleneckDenoiser(4).eval()
    denoiser(torch.randn(2, 4, 3, 3), 5).square().sum().backward()
    rows = denoiser.time_embedding.weight.grad.abs().sum(1)
    assert rows.nonzero().flatten().tolist() == [5]


@pytest.mark.parametrize(
    'denoiser, shape',
    [(BottleneckDenoiser(8), (4, 8, 5, 7)), (MLPDenoiser(8), (4, 8))],
)
def test_batch_norm_cancels_a_shared_timestep_in_train_mode(denoiser, shape):
    denoiser.double()
    noisy = torch.randn(shape, dtype=torch.float64)
    late, early = denoiser(noisy, 400), denoiser(noisy, 100)
    torch.testing.assert_close(late, early)

    mixed = denoiser(noisy, torch.tensor([400, 100, 400, 100]))
    assert (mixed - late).abs().max() > 1e-3
    denoiser.eval()
    assert (denoiser(noisy, 400) - denoiser(noisy, 100)).abs().max() > 1e-3


def test_no_relu_follows_the_addition():
    block = BottleneckDenoiser(4).eval().prediction[0]
    torch.nn.init.zeros_(block.block[-1].weight)
    feature = torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(block(feature), feature)


@pytest.mark.parametrize('channels', [1, 3])
def test_reduction_never_reaches_zero(channels):
    denoiser = BottleneckDenoiser(channels, reduction=8)
    assert denoiser.prediction[0].block[0].out_channels == 1
    assert denoiser(torch.randn(2, channels, 3, 3), 0).isfinite().all()


def test_widths():
    block = BottleneckDenoiser(12, reduction=2).prediction[0].block
    assert block[0].out_channels == 6
    assert MLPDenoiser(12, expansion=3).prediction[0].out_features == 36


def test_rows_of_the_time_embedding():
    denoiser = MODELS.build(
        {'type': 'BottleneckDenoiser', 'channels': 4, 'num_timesteps': 7}
    )
    assert denoiser.num_timesteps == 7
    denoiser(torch.randn(2, 4, 3, 3), 6)
    with pytest.raises(IndexError):
        denoiser(torch.randn(2, 4, 3, 3), 7)
