import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from mmdiffkd.models.backbones import MobileNetV1


def test_stages_have_the_published_shapes():
    backbone = MobileNetV1(out_indices=range(5)).eval()
    maps = backbone(torch.rand(2, 3, 64, 64))
    assert [tuple(x.shape[1:]) for x in maps] == [
        (64, 32, 32),
        (128, 16, 16),
        (256, 8, 8),
        (512, 4, 4),
        (1024, 2, 2),
    ]


def test_classifier_has_the_known_number_of_parameters():
    backbone = MobileNetV1()
    number = sum(p.numel() for p in backbone.parameters())
    assert number + 1024 * 1000 + 1000 == 4_231_976


def test_odd_sizes_and_widths():
    backbone = MobileNetV1(widen_factor=0.25).eval()
    (last,) = backbone(torch.rand(1, 3, 65, 33))
    assert last.shape == (1, 256, 3, 2)


def test_initial_weights_follow_fan_out():
    backbone = MobileNetV1()
    backbone.init_weights()
    pointwise = backbone.layer5[1].pointwise_conv
    std = pointwise.conv.weight.std().item()
    assert std == pytest.approx((2 / 1024) ** 0.5, rel=0.02)
    assert torch.equal(pointwise.bn.weight, torch.ones(1024))


@pytest.mark.parametrize('frozen_stages', [-1, 0, 2, 5])
def test_frozen_stages(frozen_stages):
    backbone = MobileNetV1(widen_factor=0.25, frozen_stages=frozen_stages)
    backbone.train()
    layers = ['conv1'] + [f'layer{i}' for i in range(1, 6)]
    for depth, name in enumerate(layers):
        layer = getattr(backbone, name)
        frozen = depth <= frozen_stages
        assert all(p.requires_grad != frozen for p in layer.parameters())
        assert all(m.training != frozen for m in layer.modules())


def test_norm_eval_holds_batch_norms_only():
    backbone = MobileNetV1(widen_factor=0.25, norm_eval=True).train()
    for module in backbone.modules():
        if isinstance(module, _BatchNorm):
            assert not module.training
    assert backbone.training


def test_layers_take_their_configs():
    backbone = MobileNetV1(
        widen_factor=0.25,
        norm_cfg=dict(type='GN', num_groups=4),
        act_cfg=dict(type='ReLU6'),
    )
    kinds = {type(m).__name__ for m in backbone.modules()}
    assert {'GroupNorm', 'ReLU6'} <= kinds
    assert not {'BatchNorm2d', 'ReLU'} & kinds


@pytest.mark.parametrize(
    'arguments',
    [
        dict(out_indices=(5,)),
        dict(out_indices=(-1,)),
        dict(frozen_stages=6),
        dict(frozen_stages=-2),
        dict(widen_factor=0),
    ],
)
def test_values_out_of_range_are_named(arguments):
    ((key, _),) = arguments.items()
    with pytest.raises(ValueError, match=key):
        MobileNetV1(**arguments)
