import pytest
import torch
from torch import nn

from mmdiffkd.models.necks.pooling import average, classify


def test_average():
    feature = torch.arange(24.0).reshape(1, 2, 3, 4)
    assert torch.equal(average(feature), torch.tensor([[5.5, 17.5]]))
    vector = torch.ones(2, 3)
    assert average(vector) is vector


def test_average_of_a_large_map_in_half_precision():
    feature = torch.full((1, 1, 64, 64), 100.0, dtype=torch.float16)
    assert average(feature).item() == 100.0
    assert average(feature).dtype == torch.float16


@pytest.mark.parametrize('dtype', [torch.float64, torch.float16])
def test_classify(dtype):
    head = nn.Linear(3, 5, dtype=dtype)
    feature = torch.randn(2, 3, 4, 4)
    logits = classify(feature, head)
    assert logits.dtype == dtype
    assert torch.equal(logits, head(feature.mean(dim=(2, 3)).to(dtype)))
    assert torch.equal(classify(feature, nn.Flatten()), average(feature))


class WholeHead(nn.Linear):
    """Takes a list of features and picks the last, as mmpretrain's heads."""

    def forward(self, features):
        return super().forward(features[-1])


@pytest.mark.parametrize('head', [WholeHead(3, 5), nn.LSTM(3, 5)])
def test_a_head_that_is_no_layer_of_logits(head):
    with pytest.raises(ValueError, match=r"teacher_head='head\.fc'"):
        classify(torch.ones(2, 3), head)
