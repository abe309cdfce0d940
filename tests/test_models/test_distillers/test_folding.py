import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmdiffkd.models.distillers.folding import find_pairs, fold_batch_norms


def trained(network):
    """A network in eval mode whose norms are no identities."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                module.weight.data.uniform_(0.5, 2)
                module.bias.data.normal_()
    return network.eval().requires_grad_(False)


IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def names(network):
    """The pairs found, by name."""
    paths = {module: path for path, module in network.named_modules()}
    pairs = find_pairs(network, lambda: network(IMAGES))
    return [(paths[conv], paths[norm]) for conv, norm in pairs]


def check_equal(network, expected_count):
    """Fold, and see that the function is the same and the norms are gone."""
    before, state = network(IMAGES), network.state_dict()
    count, restore = fold_batch_norms(network, lambda: network(IMAGES))
    assert count == expected_count
    folded = network(IMAGES)
    assert torch.allclose(folded, before, rtol=1e-4, atol=1e-5)
    assert not any(p.requires_grad for p in network.parameters())
    restore()
    assert torch.equal(network(IMAGES), before)
    assert network.state_dict().keys() == state.keys()
    fold_batch_norms(network, lambda: network(IMAGES))
    assert torch.equal(network(IMAGES), folded)


def norms_in(network):
    return [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize(
    'settings',
    [{}, {'bias': False}, {'groups': 3, 'stride': 2}, {'dilation': 2}],
)
@pytest.mark.parametrize('affine', [True, False])
def test_pair_becomes_one_convolution(settings, affine):
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, **settings),
        nn.BatchNorm2d(6, eps=0.1, affine=affine),
        nn.ReLU(inplace=True),
    )
    check_equal(trained(network), 1)
    assert isinstance(network[1], nn.Identity)


class Shuffled(nn.Module):
    """Registers its children in another order than it runs them."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.bn2 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3)
        self.bn1 = nn.BatchNorm2d(4)

    def forward(self, x):
        return self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))


def test_pairs_are_those_of_the_run():
    network = trained(Shuffled())
    assert names(network) == [('conv1', 'bn1'), ('conv2', 'bn2')]
    check_equal(network, 2)


class PreActivation(nn.Module):
    """A block of a wide residual network: a norm before each convolution."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.stem(x)
        y = self.conv1(self.bn1(x).relu())
        return self.last(self.conv2(self.bn2(y).relu()) + x)


def test_pre_activation_keeps_the_norms_that_the_shortcut_passes_by():
    """``stem, bn1`` and ``conv2, last`` are neighbours, but no pairs."""
    network = trained(PreActivation())
    assert names(network) == [('conv1', 'bn2')]
    check_equal(network, 1)
    assert isinstance(network.bn2, nn.Identity)
    assert len(norms_in(network)) == 2


class Function(nn.Module):
    """A convolution, a norm, and what a function makes of them."""

    def __init__(self, function, conv=None, norm=None):
        super().__init__()
        self.conv = conv or nn.Conv2d(3, 4, 3)
        self.norm = norm or nn.BatchNorm2d(4)
        self.function = function

    def forward(self, x):
        return self.function(self, x)


def twice_the_norm(m, x):
    return m.norm(m.conv(x)) + m.norm(m.conv(x).exp())


NO_PAIRS = {
    'output read again': lambda m, x: (y := m.conv(x)) + m.norm(y),
    'output changed in place': lambda m, x: m.norm(m.conv(x).relu_()),
    'output viewed': lambda m, x: m.norm(y := m.conv(x)) + y[:, :, :1, :1],
    'norm of something else': lambda m, x: m.norm(m.conv(x) * 2),
    'norm that runs twice': twice_the_norm,
    'weight used elsewhere': lambda m, x: (
        m.norm(m.conv(x)) + F.conv2d(x, m.conv.weight)
    ),
}


@pytest.mark.parametrize('function', NO_PAIRS.values(), ids=NO_PAIRS.keys())
def test_what_is_no_pair_is_left_alone(function):
    check_equal(trained(Function(function)), 0)


def plain(m, x):
    return m.norm(m.conv(x))


class Padded(nn.Conv2d):
    def forward(self, x):
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class Standardized(nn.Conv2d):
    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias)


class Activated(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).relu()


def test_classes_with_a_forward_of_their_own():
    """Padding the input is harmless; changing weights or output is not."""
    check_equal(trained(Function(plain, conv=Padded(3, 4, 3))), 1)
    check_equal(trained(Function(plain, conv=Standardized(3, 4, 3))), 0)
    check_equal(trained(Function(plain, norm=Activated(4))), 0)


def test_norm_without_statistics_or_in_train_mode():
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    check_equal(Function(plain, norm=norm).eval().requires_grad_(False), 0)
    network = trained(Function(plain))
    network.norm.train()
    assert names(network) == []


def test_shared_modules():
    """One convolution before two norms, as in heads shared by levels."""
    network = trained(Function(lambda m, x: plain(m, x) + m.other(m.conv(x))))
    network.other = trained(nn.BatchNorm2d(4))
    check_equal(network, 0)
    # A pair that runs twice is one all the same, under any name.
    network = trained(Function(lambda m, x: plain(m, x) + plain(m, x * 2)))
    network.alias = network.norm
    check_equal(network, 1)
    assert not norms_in(network)


def test_modules_with_hooks_are_left_alone():
    for name in ('conv', 'norm'):
        for register in ('register_forward_hook', 'register_forward_pre_hook'):
            network = trained(Function(plain))
            getattr(getattr(network, name), register)(lambda *args: None)
            check_equal(network, 0)


def test_output_that_another_module_hands_on():
    network = trained(Function(plain, conv=nn.Sequential(nn.Conv2d(3, 4, 3))))
    check_equal(network, 0)


def test_no_hook_stays():
    network = trained(Function(plain))
    check_equal(network, 1)
    assert not torch.nn.modules.module._global_forward_hooks
