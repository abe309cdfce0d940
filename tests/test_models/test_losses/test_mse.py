import torch

from mmdiffkd.registry import MODELS


def test_loss_weight():
    loss = MODELS.build({'type': 'MSELoss', 'loss_weight': 5.0})
    student = torch.tensor([1.0, 2.0])
    assert loss(student, torch.tensor([0.0, 4.0])).item() == 12.5
