import pytest
import torch
from mmpretrain.models.backbones import ResNet_CIFAR
from published_networks import check_network, fingerprint, spread

from mmdiffkd.models.backbones import CIFARResNet

WIDE = dict(stem_channels=32, base_channels=64)
MAPS = '16@32 16@32 32@16 64@8'
WIDE_MAPS = '32@32 64@32 128@16 256@8'


@pytest.mark.parametrize(
    'depth, arguments, parameters, mega_macs, maps, width',
    [
        (8, {}, 83_892, 12.5, MAPS, 64),
        (14, {}, 181_108, 26.7, MAPS, 64),
        (20, {}, 278_324, 40.8, MAPS, 64),
        (32, {}, 472_756, 69.1, MAPS, 64),
        (44, {}, 667_188, 97.4, MAPS, 64),
        (56, {}, 861_620, 125.8, MAPS, 64),
        (110, {}, 1_736_564, 253.2, MAPS, 64),
        (8, WIDE, 1_233_540, 177.1, WIDE_MAPS, 256),
        (32, WIDE, 7_433_860, 1083.0, WIDE_MAPS, 256),
    ],
)
def test_published_network(
    depth, arguments, parameters, mega_macs, maps, width
):
    check_network(
        lambda: CIFARResNet(depth, **arguments, out_indices=range(3)),
        *(parameters, mega_macs, maps),
        stem='relu',
        width=width,
    )


@pytest.mark.parametrize(
    'depth, parameters, mega_macs, widths',
    [
        (18, 11_220_132, 555.5, (64, 128, 256, 512)),
        (50, 23_705_252, 1298.0, (256, 512, 1024, 2048)),
    ],
)
def test_mmpretrains_networks_are_the_published_ones(
    depth, parameters, mega_macs, widths
):
    maps = [f'{c}@{s}' for c, s in zip(widths, (32, 16, 8, 4))]
    check_network(
        lambda: ResNet_CIFAR(
            depth, out_indices=range(4), zero_init_residual=False
        ),
        *(parameters, mega_macs),
        maps=' '.join(['64@32', *maps]),
        stem='relu',
        width=widths[-1],
    )


@pytest.mark.parametrize(
    'arguments, value',
    [
        (dict(depth=20), -72499.38243424465),
        (dict(depth=8, **WIDE), 90.6211503194819),
    ],
)
def test_layers_are_connected_as_published(arguments, value):
    # The value is that of the public benchmark code (RepDistiller).
    found = fingerprint(CIFARResNet(**arguments))
    assert found == pytest.approx(value, rel=1e-9)


def test_initial_weights_follow_fan_out():
    backbone = CIFARResNet(8, **WIDE)
    backbone.init_weights()
    block = backbone.layer3[0]
    for conv in (block.conv1, block.conv2):
        assert spread(conv.weight) == pytest.approx(
            (2 / (9 * 256)) ** 0.5, rel=0.02
        )
    # No norm starts at 0, as mmpretrain would have it.
    assert torch.equal(block.norm2.weight, torch.ones(256))


def test_further_arguments_are_mmpretrains():
    backbone = CIFARResNet(8, frozen_stages=1, out_indices=(0, 2))
    backbone.train()
    assert not any(p.requires_grad for p in backbone.layer1.parameters())
    assert len(backbone(torch.rand(2, 3, 16, 16))) == 2
    with pytest.raises(KeyError, match='depth 18'):
        CIFARResNet(18)
