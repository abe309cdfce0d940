import pytest
import torch

from mmdiffkd.models.diffusion.precision import at_least_float32


@pytest.mark.parametrize(
    'given, kept',
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_dtype(given, kept):
    assert at_least_float32(torch.ones(2, dtype=given)).dtype == kept
