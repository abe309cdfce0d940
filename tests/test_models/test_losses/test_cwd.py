import pytest
import torch

from mmdiffkd.models.losses import ChannelWiseDivergence, KLDivergence


def test_channels_are_distributions_over_positions():
    student, teacher = torch.randn(2, 2, 3, 4, 5, dtype=torch.float64)
    rows = [x.reshape(6, 20) for x in (student, teacher)]
    torch.testing.assert_close(
        ChannelWiseDivergence(tau=2.0)(student, teacher),
        KLDivergence(tau=2.0)(*rows),
    )


def test_tau_out_of_range():
    with pytest.raises(ValueError, match='tau=0'):
        ChannelWiseDivergence(tau=0)
