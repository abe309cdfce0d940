import copy
import zlib
from fractions import Fraction

import numpy as np
import pytest
import torch

from mmdiffkd.models.diffusion import NoiseSchedule
from mmdiffkd.models.diffusion.schedule import _linspace


def is_the_table(alpha_bars):
    """Whether it is, to the last bit, the default one, on any processor."""
    assert alpha_bars.dtype == torch.float32
    return zlib.crc32(alpha_bars.numpy().tobytes()) == 3466789573


def test_table_is_the_released_one():
    alpha_bars = NoiseSchedule().alpha_bars
    assert is_the_table(alpha_bars)
    # The released formula; its last bits depend on the processor.
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float32)
    released = torch.cumprod(1 - betas, dim=0)
    torch.testing.assert_close(alpha_bars, released, rtol=1e-5, atol=0)
    # Six digits, as published for the released code.
    for timestep, value in [(0, 0.9999), (400, 0.193572), (999, 0.00004)]:
        assert alpha_bars[timestep].item() == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize('steps', [1, 2, 5, 1000])
def test_beta_is_linear(steps):
    """In exact arithmetic, rounded to float32 once."""
    first, last = np.float32([0.1, 0.3])
    step = Fraction(float((last - first) / np.float32(max(steps - 1, 1))))
    expected = [
        float(first) + float(step * i)
        if i < max(steps // 2, 1)
        else float(last) - float(step * (steps - 1 - i))
        for i in range(steps)
    ]
    found = _linspace(0.1, 0.3, steps)
    assert found.tolist() == np.float32(expected).tolist()
    torch.testing.assert_close(found, torch.linspace(0.1, 0.3, steps))


def test_alpha_bar_is_the_table_in_python():
    schedule = NoiseSchedule()
    assert schedule.alpha_bar(300) == schedule.alpha_bars[300].item()


def test_table_is_in_no_state_dict():
    assert not NoiseSchedule().state_dict()


@pytest.mark.parametrize(
    'convert',
    [
        lambda m: m.half(),
        lambda m: m.double(),
        lambda m: m.to(torch.bfloat16),
        lambda m: m.half().float(),
        lambda m: torch.nn.Sequential(m).half()[0],
        lambda m: copy.deepcopy(m).half(),
    ],
)
def test_table_survives_changes_of_dtype(convert):
    assert is_the_table(convert(NoiseSchedule()).alpha_bars)


def test_table_survives_the_meta_device():
    with torch.device('meta'):
        schedule = NoiseSchedule()
    assert schedule.alpha_bars.is_meta
    schedule.to_empty(device='cpu')
    assert is_the_table(schedule.alpha_bars)
    assert schedule.to('meta').alpha_bars.is_meta


@pytest.mark.parametrize('shape', [(3, 5), (3, 5, 4, 7)])
@pytest.mark.parametrize(
    'dtype', [torch.float64, torch.float32, torch.bfloat16, torch.float16]
)
def test_add_noise(shape, dtype):
    schedule = NoiseSchedule().to(dtype)
    clean, noise = torch.randn(2, *shape, dtype=torch.float64).to(dtype)
    timesteps = torch.tensor([0, 500, 999])
    noisy = schedule.add_noise(clean, noise, timesteps)

    better = torch.promote_types(dtype, torch.float32)
    assert noisy.dtype == better
    for i, timestep in enumerate(timesteps):
        alpha_bar = NoiseSchedule().alpha_bars[timestep].double()
        expected = (
            alpha_bar.sqrt() * clean[i].double()
            + (1 - alpha_bar).sqrt() * noise[i].double()
        )
        tolerance = 1e-12 if dtype == torch.float64 else 1e-5
        assert (noisy[i].double() - expected).abs().max() < tolerance


@pytest.mark.parametrize(
    'arguments, named',
    [
        ({'num_train_timesteps': 0}, 'num_train_timesteps=0'),
        ({'beta_start': 0.0}, 'beta_start=0.0'),
        ({'beta_start': 0.03}, 'beta_start=0.03'),
        ({'beta_end': 1.0}, 'beta_end=1.0'),
    ],
)
def test_arguments_out_of_range(arguments, named):
    with pytest.raises(ValueError, match=named):
        NoiseSchedule(**arguments)
