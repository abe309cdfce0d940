import pytest
import torch
from torch import nn

from mmdiffkd.models.distillers import Tap, Taps


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.stages = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(3))
        self.neck = Levels()
        self.head = nn.Linear(4, 2)
        self.silent = Silent()

    def forward(self, x, calls=3):
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        levels = self.neck(x)
        self.silent(x)
        return [self.head(level.mean((2, 3))) for level in levels[:calls]]


class Levels(nn.Module):
    def forward(self, x):
        return x * 1, {'a': x * 2, 'b': [x * 3]}


class Silent(nn.Module):
    def forward(self, x):
        return 'no tensor'


def read(text, **kwargs):
    network = Network()
    network.neck.forward = lambda x: [x * 1, x * 2, x * 3]
    taps = Taps(network, [text], 'student')
    with taps.record():
        network(torch.ones(2, 3, 5, 5), **kwargs)
    return taps.read(text)


@pytest.mark.parametrize(
    'text, count',
    [
        ('stem', 1),
        ('stages.1', 1),
        ('neck', 3),
        ('neck[-1]', 1),
        ('neck[0:2]', 2),
        ('neck[::2]', 2),
        ('head', 3),
        ('head[1]', 1),
    ],
)
def test_tap_yields_flat_list(text, count):
    assert len(read(text)) == count


def test_index_picks_in_order():
    low, middle, high = read('neck')
    assert torch.equal(middle, low * 2) and torch.equal(high, low * 3)
    torch.manual_seed(0)
    (last,) = read('neck[-1]')
    torch.manual_seed(0)
    assert torch.equal(last, read('neck')[2])


def test_nested_outputs_are_flattened():
    network = Network()
    taps = Taps(network, ['neck'], 'student')
    with taps.record():
        network.neck(torch.ones(1, 4, 2, 2))
    assert [t.mean().item() for t in taps.read('neck')] == [1, 2, 3]


@pytest.mark.parametrize(
    'text', ['', 'a..b', '[0]', 'a[', 'a]b', 'a b', '.a', 3, None]
)
def test_malformed_tap_is_refused(text):
    with pytest.raises(ValueError, match='is not a tap'):
        Tap(text)


@pytest.mark.parametrize('index', ['x', '1.5', '', '1,2', '1:2:3:4', '::0'])
def test_malformed_index_is_refused(index):
    with pytest.raises(ValueError, match='index|step of 0'):
        Tap(f'neck[{index}]')


def test_unknown_path_lists_the_nearest():
    with pytest.raises(ValueError, match="student.*'stage'.*'stages"):
        Taps(Network(), ['stage'], 'student')


def test_index_on_a_lone_tensor_is_refused():
    with pytest.raises(ValueError, match='would cut its batch'):
        read('stem[0]')


def test_index_beyond_the_list_is_refused():
    with pytest.raises(ValueError, match='from -3 to 2'):
        read('neck[3]')


def test_module_without_tensor_is_refused():
    with pytest.raises(ValueError, match='yields no tensor'):
        read('silent')


def test_other_number_of_calls_is_refused():
    network = Network()
    network.neck.forward = lambda x: [x * 1, x * 2, x * 3]
    taps = Taps(network, ['head'], 'teacher')
    images = torch.ones(2, 3, 5, 5)
    with taps.record():
        network(images)
    taps.remember_calls()
    with taps.record():
        network(images, calls=2)
    with pytest.raises(ValueError, match='2 times.*3 times at start-up'):
        taps.read('head')


def test_in_place_change_is_refused():
    network = nn.ModuleDict(
        dict(conv=nn.Conv2d(3, 4, 1), relu=nn.ReLU(inplace=True))
    )
    taps = Taps(network, ['conv', 'relu'], 'student')
    with taps.record():
        network['relu'](network['conv'](torch.ones(1, 3, 2, 2)))
    assert len(taps.read('relu')) == 1
    with pytest.raises(ValueError, match="'conv'.*changed in place.*@input"):
        taps.read('conv')


def test_nothing_is_recorded_outside_and_nothing_is_kept():
    network = Network()
    taps = Taps(network, ['stem'], 'student')
    network.stem(torch.ones(1, 3, 2, 2))
    assert [t.path for t in taps.silent] == ['stem']
    with taps.record():
        network.stem(torch.ones(1, 3, 2, 2))
    assert [t.path for t in taps.silent] == []
    taps.clear()
    assert [t.path for t in taps.silent] == ['stem']
    with pytest.raises(RuntimeError), taps.record():
        network.stem(torch.ones(1, 3, 2, 2))
        raise RuntimeError
    assert [t.path for t in taps.silent] == ['stem']


def test_record_reads_the_chosen_taps_only():
    network = Network()
    taps = Taps(network, ['stem', 'stages.0'], 'student')
    with taps.record(['stem']):
        network.stages[0](network.stem(torch.ones(1, 3, 2, 2)))
    assert [t.path for t in taps.silent] == ['stages.0']


@pytest.mark.parametrize('inplace', [True, False])
def test_input_is_read_before_the_module_changes_it(inplace):
    relu = nn.ReLU(inplace=inplace)
    taps = Taps(nn.ModuleDict(dict(relu=relu)), ['relu@input'], 'student')
    given = torch.tensor([-1.0, 2.0], requires_grad=True) * 3
    with taps.record():
        relu(given)
    (read,) = taps.read('relu@input')
    assert read.tolist() == [-3, 6] and read.requires_grad


def test_input_and_output_of_one_module():
    linear = nn.Linear(2, 3)
    taps = Taps(nn.ModuleDict(dict(a=linear)), ['a@input[-1]', 'a'], 'student')
    assert Tap('a@input[-1]').point == 'a@input' and Tap('a').point == 'a'
    with taps.record():
        for value in (1.0, 2.0):
            linear(input=torch.full((1, 2), value))
    (read,) = taps.read('a@input[-1]')
    assert read.tolist() == [[2.0, 2.0]]
    assert [t.shape for t in taps.read('a')] == [(1, 3)] * 2


def test_input_changed_in_place_by_a_container_is_refused():
    inner = nn.Sequential(nn.ReLU(inplace=True))
    taps = Taps(nn.ModuleDict(dict(a=inner)), ['a@input'], 'teacher')
    with taps.record():
        inner(torch.ones(1, 2) - 2)
    with pytest.raises(ValueError, match='changed in place'):
        taps.read('a@input')
