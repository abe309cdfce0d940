import pytest
import torch
from published_networks import check_network, fingerprint, spread

from mmdiffkd.models.backbones import CIFARVGG


@pytest.mark.parametrize(
    'depth, parameters, mega_macs',
    [
        (8, 3_965_028, 96.2),
        (11, 9_277_284, 209.4),
        (13, 9_462_180, 284.9),
        (16, 14_774_436, 398.2),
        (19, 20_086_692, 511.4),
    ],
)
def test_published_network(depth, parameters, mega_macs):
    # Its stage 0 is what the literature counts as the stem.
    check_network(
        lambda: CIFARVGG(depth, out_indices=range(1, 5)),
        *(parameters, mega_macs),
        maps='64@32 128@16 256@8 512@4 512@4',
        stem='layer0',
        width=512,
    )


@pytest.mark.parametrize(
    'depth, value', [(8, 16.570785038828802), (13, 777.5598109199846)]
)
def test_layers_are_connected_as_published(depth, value):
    # The value is that of the public benchmark code (RepDistiller).
    found = fingerprint(CIFARVGG(depth))
    assert found == pytest.approx(value, rel=1e-9)


def test_preactivations_are_left_alone():
    backbone = CIFARVGG(8, out_indices=range(5)).eval()
    preactivations = []
    for i in range(5):
        backbone.get_submodule(f'layer{i}.bn1').register_forward_hook(
            lambda module, args, output: preactivations.append(output)
        )
    maps = backbone(torch.rand(2, 3, 32, 32))
    for before, after in zip(preactivations, maps, strict=True):
        assert (before < 0).any()
        assert torch.equal(before.relu(), after)


def test_initial_weights_follow_fan_out():
    backbone = CIFARVGG(13)
    backbone.init_weights()
    conv = backbone.layer3.conv2
    assert spread(conv.weight) == pytest.approx(
        (2 / (9 * 512)) ** 0.5, rel=0.02
    )
    assert torch.equal(conv.bias, torch.zeros(512))
    assert torch.equal(backbone.layer3.bn2.weight, torch.ones(512))


def test_unknown_depth_is_named():
    with pytest.raises(ValueError, match='depth=10'):
        CIFARVGG(10)
