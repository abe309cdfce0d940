import random

import numpy as np
import pytest
import tiny_recipes
import torch
import torchvision
from mmpretrain.models import ImageClassifier
from torch import nn

from mmdiffkd.models.distillers.forward import arguments_of, forward_to_taps
from mmdiffkd.models.distillers.probe import dry_run
from mmdiffkd.models.distillers.taps import Taps


def run(network, *texts, size=(16, 16), training=True):
    taps = Taps(network, texts, 'student')
    return dry_run(network, taps, (3, *size), training)


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


def test_a_head_that_wants_more_than_features_runs_whole():
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(3, 2)

        def forward(self, features, queries):
            return self.inner(features.mean((2, 3))) + queries

    class Whole(nn.Module):
        def __init__(self, fails=False):
            super().__init__()
            self.backbone = nn.Conv2d(3, 3, 1)
            self.head = Head()
            self.fails = fails

        def extract_feat(self, inputs):
            return self.backbone(inputs)

        def forward(self, inputs, data_samples=None, mode='tensor'):
            assert len(data_samples) == len(inputs)
            assert data_samples[0].img_shape == tuple(inputs.shape[-2:])
            features = self.head(self.extract_feat(inputs), 0)
            if self.fails:
                raise RuntimeError('behind the tap')
            return features

    for fails in (False, True):
        shapes, heads = run(Whole(fails), 'head.inner', 'backbone')
        assert shapes['head.inner'] == [(2, 2)]
        assert set(heads.values()) == {''}

    class Broken(Whole):
        def forward(self, inputs, data_samples=None, mode='tensor'):
            raise RuntimeError('at the start')

    with pytest.raises(
        ValueError, match="at the start; 'head' called.*queries"
    ):
        run(Broken(), 'head')


class Projecting(ImageClassifier):
    """Does more than its base before a module, and before its head."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.projection = nn.Linear(16, 16)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        (feature,) = self.extract_feat(inputs)[-1:]
        return self.head((self.projection(3 * feature + 1),))


def test_what_lies_between_features_and_a_module_is_not_left_out(build):
    config = tiny_recipes.classifier()
    network = Projecting(
        **{k: v for k, v in config.items() if k[0] not in 't_'}
    )
    network.eval()
    taps = Taps(network, ['projection', 'head.fc'], 'teacher')
    shapes, heads = dry_run(network, taps, (3, 16, 16), training=False)
    assert set(heads.values()) == {''}
    images = torch.rand(2, 3, 16, 16)
    with taps.record(), torch.no_grad():
        forward_to_taps(network, images, arguments_of(network, [''], images))
    expected = network(images)
    assert torch.equal(taps.read('head.fc')[0], expected)


def test_what_no_forward_pass_runs_gets_features_with_a_warning(log):
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = nn.Conv2d(3, 4, 1)
            self.extra = nn.Conv2d(4, 5, 1)

        def extract_feat(self, inputs):
            return self.backbone(inputs)

        def forward(self, inputs, mode='tensor'):
            return self.extract_feat(inputs)

    shapes, heads = run(Idle(), 'extra')
    assert shapes == {'extra': [(2, 5, 16, 16)]}
    assert heads == {'extra': 'extra'}
    assert "student's 'extra', which the network does not run" in log.text


def test_a_network_that_no_package_wraps_runs():
    network = torchvision.models.squeezenet1_1(num_classes=3)
    shapes, heads = run(network, 'features', 'classifier', size=(64, 64))
    assert shapes['features'] == [(2, 512, 3, 3)]
    assert shapes['classifier'] == [(2, 3, 1, 1)]
    assert set(heads.values()) == {''}


def test_a_head_that_wants_the_samples_gets_them():
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.decoder = nn.Linear(3, 2)

        def forward(self, features, batch_data_samples):
            height, width = batch_data_samples[0].batch_input_shape
            return self.decoder(features.mean((2, 3))) * height / width

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = nn.Conv2d(3, 3, 1)
            self.head = Head()

        def extract_feat(self, inputs):
            return self.backbone(inputs)

    shapes, heads = run(Model(), 'head.decoder')
    assert shapes == {'head.decoder': [(2, 2)]}
    assert heads == {'head.decoder': 'head'}


def test_a_tap_that_stays_silent_lists_what_is_inside(build):
    network = build(tiny_recipes.classifier())
    network.backbone.unused = nn.Sequential(nn.ReLU(), nn.ReLU())
    message = "did not run. Tap one.*'backbone.unused.0', 'backbone.unused.1'"
    with pytest.raises(ValueError, match=message):
        run(network, 'backbone.unused')


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
