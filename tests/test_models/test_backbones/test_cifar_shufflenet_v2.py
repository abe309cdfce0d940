import pytest
import torch
from mmpretrain.models.backbones import ShuffleNetV2
from published_networks import check_network, fingerprint, spread

from mmdiffkd.models.backbones import CIFARShuffleNetV2


def test_published_network():
    check_network(
        lambda: CIFARShuffleNetV2(out_indices=range(4)),
        parameters=1_355_528,
        mega_macs=44.5,
        maps='24@32 116@16 232@8 464@4',
        stem='conv1',
        width=1024,
    )


def test_layers_are_connected_as_published():
    # The value is that of the public benchmark code (RepDistiller).
    found = fingerprint(CIFARShuffleNetV2())
    assert found == pytest.approx(0.2965161383034085, rel=1e-9)


def test_only_the_stem_differs_from_mmpretrains():
    ours, theirs = CIFARShuffleNetV2(), ShuffleNetV2()
    theirs.conv1, theirs.maxpool = ours.conv1, torch.nn.Identity()
    theirs.load_state_dict(ours.state_dict())
    image = torch.rand(2, 3, 32, 32)
    ours.train(False)
    theirs.train(False)
    assert torch.equal(ours(image)[0], theirs(image)[0])


def test_initial_weights_are_torchs():
    backbone = CIFARShuffleNetV2()
    backbone.init_weights()
    block = backbone.layers[2][1]
    # Uniform between -1 and 1 over the root of the inputs.
    weight = block.branch2[0].conv.weight
    assert spread(weight) == pytest.approx((3 * 232) ** -0.5, rel=0.02)
    assert weight.abs().max() <= 232**-0.5
    assert torch.equal(block.branch2[0].bn.bias, torch.zeros(232))


def test_initialisation_can_be_configured():
    backbone = CIFARShuffleNetV2(
        init_cfg=dict(type='Constant', layer='BatchNorm2d', val=0.5)
    )
    backbone.init_weights()
    assert backbone.layers[0][0].branch1[1].bn.weight.eq(0.5).all()
