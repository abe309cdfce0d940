import pytest
import torch

from mmdiffkd.models.losses import MGDLoss


def test_is_the_sum_over_elements_and_the_mean_over_samples():
    student = torch.tensor([[[[1.0, 2.0]]], [[[3.0, 4.0]]]])
    teacher = torch.zeros(2, 1, 1, 2)
    loss = MGDLoss(alpha_mgd=0.5, loss_weight=3.0)(student, teacher)
    assert loss.item() == 0.5 * 3 * (1 + 4 + 9 + 16) / 2


def test_default_weight():
    ones = torch.ones(1, 10, 10, 10)
    loss = MGDLoss()(ones, torch.zeros_like(ones))
    assert loss.item() == pytest.approx(0.02)


def test_sum_of_a_large_map_fits_into_float32_alone():
    student = torch.ones(1, 256, 32, 32, dtype=torch.float16)
    loss = MGDLoss()(student, torch.zeros_like(student))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(2e-5 * 256 * 32 * 32)
