import pytest
import torch
from published_networks import check_network, fingerprint, spread

from mmdiffkd.models.backbones import CIFARMobileNetV2


def test_published_network():
    check_network(
        lambda: CIFARMobileNetV2(out_indices=range(5)),
        parameters=812_836,
        mega_macs=6.5,
        maps='16@16 12@16 16@8 48@4 160@2',
        stem='stem',
        width=1280,
    )


def test_layers_are_connected_as_published():
    # The value is that of the public benchmark code (RepDistiller).
    found = fingerprint(CIFARMobileNetV2())
    assert found == pytest.approx(-1.610457957376549, rel=1e-9)


def test_blocks_add_their_input_where_the_shape_stays():
    backbone = CIFARMobileNetV2()
    blocks = [
        block
        for i in range(1, 5)
        for block in backbone.get_submodule(f'layer{i}')
    ]
    # One a repetition: 17 blocks less the first of each of 7 groups.
    assert [b.adds_input for b in blocks].count(True) == 17 - 7
    block = backbone.layer2[1]
    block.layers.bn3.weight.data.zero_()
    x = torch.randn(2, 16, 4, 4)
    assert torch.equal(block(x), x)


def test_initial_weights_follow_fan_out_whatever_the_groups():
    backbone = CIFARMobileNetV2()
    backbone.init_weights()
    layers = backbone.layer4[1].layers
    assert spread(layers.expand.weight) == pytest.approx(
        (2 / 480) ** 0.5, rel=0.03
    )
    assert spread(layers.depthwise.weight) == pytest.approx(
        (2 / (9 * 480)) ** 0.5, rel=0.05
    )
    assert torch.equal(layers.bn1.weight, torch.ones(480))


def test_activations_are_relu():
    kinds = {type(m).__name__ for m in CIFARMobileNetV2().modules()}
    assert 'ReLU' in kinds and 'ReLU6' not in kinds


@pytest.mark.parametrize('widen_factor', [0, 0.05])
def test_widths_of_no_channel_are_named(widen_factor):
    with pytest.raises(ValueError, match=f'widen_factor={widen_factor}'):
        CIFARMobileNetV2(widen_factor)
