import pytest
import torch
from published_networks import check_network, fingerprint, spread

from mmdiffkd.models.backbones import CIFARWideResNet


@pytest.mark.parametrize(
    'depth, widen_factor, parameters, mega_macs, maps',
    [
        (16, 1, 180_916, 26.7, '16@32 16@32 32@16 64@8'),
        (16, 2, 703_284, 101.1, '16@32 32@32 64@16 128@8'),
        (40, 1, 569_780, 83.3, '16@32 16@32 32@16 64@8'),
        (40, 2, 2_255_156, 327.6, '16@32 32@32 64@16 128@8'),
    ],
)
def test_published_network(depth, widen_factor, parameters, mega_macs, maps):
    check_network(
        lambda: CIFARWideResNet(depth, widen_factor, out_indices=range(4)),
        *(parameters, mega_macs, maps),
        stem='stem',
        width=64 * widen_factor,
    )


@pytest.mark.parametrize(
    'depth, widen_factor, value',
    [(16, 2, 6511.018062018224), (40, 1, -16829172209.165922)],
)
def test_layers_are_connected_as_published(depth, widen_factor, value):
    # The value is that of the public benchmark code (RepDistiller).
    found = fingerprint(CIFARWideResNet(depth, widen_factor))
    assert found == pytest.approx(value, rel=1e-9)


def test_stages_come_before_the_norm_and_the_last_map_behind_the_relu():
    backbone = CIFARWideResNet(16, out_indices=range(4)).eval()
    before = []
    backbone.last.bn.register_forward_hook(
        lambda module, args, output: before.append((args[0], output))
    )
    *_, raw, last = backbone(torch.rand(2, 3, 32, 32))
    ((entered, preactivation),) = before
    assert torch.equal(entered, raw)
    assert torch.equal(preactivation.relu(), last)
    assert (raw < 0).any()
    # Nothing has worked in place on what a tap reads.
    assert (preactivation < 0).any()


def test_shortcut_is_the_input_or_a_convolution_of_the_first_relu():
    backbone = CIFARWideResNet(16, 2)
    for block in backbone.modules():
        if hasattr(block, 'conv2'):
            block.conv2.weight.data.zero_()
    first, second = backbone.layer2
    x = torch.randn(2, 32, 4, 4)
    y = torch.nn.functional.conv2d(
        first.bn1(x).relu(), first.shortcut.weight, stride=2
    )
    assert torch.allclose(first(x), y)
    assert torch.equal(second(y), y)


def test_initial_weights_follow_fan_out():
    backbone = CIFARWideResNet(16, 2)
    backbone.init_weights()
    block = backbone.layer3[0]
    for conv, area in ((block.conv1, 9), (block.shortcut, 1)):
        assert spread(conv.weight) == pytest.approx(
            (2 / (area * 128)) ** 0.5, rel=0.03
        )
    assert torch.equal(block.bn2.weight, torch.ones(128))
    assert torch.equal(block.bn2.bias, torch.zeros(128))


@pytest.mark.parametrize(
    'arguments',
    [dict(depth=18), dict(depth=4), dict(depth=16, widen_factor=0)],
)
def test_values_out_of_range_are_named(arguments):
    *_, (key, value) = arguments.items()
    with pytest.raises(ValueError, match=f'{key}={value}'):
        CIFARWideResNet(**arguments)
