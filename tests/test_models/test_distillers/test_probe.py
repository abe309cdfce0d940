import random

import numpy as np
import pytest
import tiny_recipes
import torch
from torch import nn

from mmdiffkd.models.distillers.probe import dry_run
from mmdiffkd.models.distillers.taps import Taps


def run(network, *texts, size=(16, 16), training=True):
    taps = Taps(network, texts, 'student')
    return dry_run(network, taps, size, training)


def test_shapes_of_backbone_and_neck(build):
    network = build(tiny_recipes.classifier())
    shapes, heads = run(network, 'backbone', 'neck[-1]', size=(16, 24))
    assert shapes == {
        'backbone': [(2, 8, 8, 12), (2, 16, 4, 6)],
        'neck[-1]': [(2, 16)],
    }
    assert heads == {}


def test_head_is_called_for_its_tap_alone(build):
    network = build(tiny_recipes.classifier())
    shapes, heads = run(network, 'head.fc')
    assert shapes == {'head.fc': [(2, 2)]}
    assert heads == {'head.fc': 'head'}


def test_model_without_extract_feat_runs_in_tensor_mode():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 5, 1)

        def forward(self, inputs, data_samples=None, mode='loss'):
            assert mode == 'tensor'
            return self.layer(inputs)

    assert run(Plain(), 'layer')[0] == {'layer': [(2, 5, 16, 16)]}


@pytest.mark.parametrize('operator', ['meta', 'real'])
def test_nothing_moves(build, operator):
    network = build(tiny_recipes.classifier(drop_path_rate=0.5))
    if operator == 'real':
        # Reading a value is what meta tensors cannot do.
        forward = network.backbone.forward
        network.backbone.forward = lambda x: forward(x + x.mean().item())
    network.backbone.bn1.eval()
    torch.manual_seed(1)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    modes = [m.training for m in network.modules()]
    expected = torch.rand(3), np.random.get_state()[1][:3], random.getstate()
    torch.manual_seed(1)
    run(network, 'backbone[-1]')
    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.get_state()[1][:3], expected[1])
    assert random.getstate() == expected[2]
    assert [m.training for m in network.modules()] == modes
    after = network.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())


def test_training_mode_is_set():
    class Modal(nn.Module):
        def extract_feat(self, inputs):
            return self.layer(inputs) if self.training else self.other(inputs)

        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 5, 1)
            self.other = nn.Conv2d(3, 6, 1)

    assert run(Modal(), 'layer')[0]['layer'] == [(2, 5, 16, 16)]
    shapes, _ = run(Modal(), 'other', training=False)
    assert shapes['other'] == [(2, 6, 16, 16)]


def test_impossible_size_names_the_key(build):
    network = build(tiny_recipes.classifier())
    network.backbone.forward = lambda x: x.view(7, 7)
    with pytest.raises(ValueError, match='`input_size` of the distiller'):
        run(network, 'backbone.conv1')


def test_synchronised_batch_norm_runs_on_the_cpu(build):
    network = build(tiny_recipes.classifier(norm_cfg=dict(type='SyncBN')))
    assert run(network, 'backbone[-1]')[0]['backbone[-1]'] == [(2, 16, 4, 4)]
    assert network.backbone.bn1.training


def test_shared_modules_and_weights_stay_real():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 1)
            block = nn.Conv2d(4, 4, 1)
            self.blocks = nn.ModuleList([block, block])
            self.again = nn.Conv2d(4, 4, 1)
            self.again.weight = block.weight

        def extract_feat(self, x):
            x = self.stem(x)
            for block in self.blocks:
                x = block(x)
            return self.again(x)

    network = Shared()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    assert run(network, 'again')[0] == {'again': [(2, 4, 16, 16)]}
    assert not any(p.is_meta for p in network.parameters())
    assert network.again.weight is network.blocks[1].weight
    after = network.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
