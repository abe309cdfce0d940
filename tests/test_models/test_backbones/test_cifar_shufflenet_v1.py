import pytest
import torch
from published_networks import check_network, fingerprint, spread

from mmdiffkd.models.backbones import CIFARShuffleNetV1


def test_published_network():
    check_network(
        lambda: CIFARShuffleNetV1(out_indices=range(3)),
        parameters=949_258,
        mega_macs=38.7,
        maps='24@32 240@16 480@8 960@4',
        stem='stem',
        width=960,
    )


def test_layers_are_connected_as_published():
    # The value is that of the public benchmark code (RepDistiller).
    found = fingerprint(CIFARShuffleNetV1())
    assert found == pytest.approx(31.598087039867025, rel=1e-9)


def test_groups_and_shuffle():
    backbone = CIFARShuffleNetV1()
    first, second = backbone.layer1[:2]
    assert first.layers.conv1.groups == first.layers.shuffle.groups == 1
    assert second.layers.conv1.groups == second.layers.shuffle.groups == 3
    # Neighbours come from different groups.
    x = torch.arange(60.0).reshape(1, 60, 1, 1)
    assert second.layers.shuffle(x).flatten()[:4].tolist() == [0, 20, 40, 1]


def test_strided_block_puts_the_pooled_input_last():
    block = CIFARShuffleNetV1().layer2[0]
    x = torch.randn(2, 240, 8, 8)
    pooled = torch.nn.functional.avg_pool2d(x, 3, 2, padding=1)
    assert torch.equal(block(x)[:, 240:], pooled.relu())


def test_other_blocks_add_their_input():
    block = CIFARShuffleNetV1().layer2[1]
    block.layers.bn3.weight.data.zero_()
    x = torch.randn(2, 480, 4, 4)
    assert torch.equal(block(x), x.relu())


def test_initial_weights_are_torchs():
    backbone = CIFARShuffleNetV1()
    before = backbone.layer3[1].layers.conv3.weight.clone()
    backbone.init_weights()
    after = backbone.layer3[1].layers.conv3.weight
    assert torch.equal(before, after)
    # Uniform between -1 and 1 over the root of the inputs of a group.
    assert spread(after) == pytest.approx((3 * 80) ** -0.5, rel=0.02)


def test_unknown_stage_is_named():
    with pytest.raises(ValueError, match=r'out_indices=\(3,\).*0 to 2'):
        CIFARShuffleNetV1(out_indices=(3,))
