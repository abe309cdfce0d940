import pytest
import torch

from mmdiffkd.models.distillers.layout import tokens_to_map


@pytest.mark.parametrize('extra', [0, 1, 5])
def test_tokens_become_maps(extra):
    tokens = torch.arange(2.0 * (extra + 6) * 5).view(2, extra + 6, 5)
    result = tokens_to_map(tokens, (32, 48), extra)
    assert result.shape == (2, 5, 2, 3)
    assert torch.equal(result[0, :, 0, 1], tokens[0, extra + 1])
    assert torch.equal(result[1, :, 1, 2], tokens[1, extra + 5])
