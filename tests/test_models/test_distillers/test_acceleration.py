import functools
import re
from collections import OrderedDict

import pytest
import tiny_recipes
import torch
from tiny_teachers import (
    FAST,
    PLAIN,
    TAPS,
    build_teacher,
    frozen,
    saved,
    with_statistics,
)
from torch import nn

from mmdiffkd.models.distillers import FrozenTeacher
from mmdiffkd.utils import load_config

FAMILIES = {
    'ResNet': (
        'mmpretrain::resnet/resnet18_8xb32_in1k.py',
        [*TAPS, 'backbone.layer2.1.relu@input[-1]'],
        20,
    ),
    'MobileNetV2': (
        'mmpretrain::mobilenet_v2/mobilenet-v2_8xb32_in1k.py',
        ['backbone[-1]'],
        52,
    ),
    'Swin': (
        'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py',
        TAPS,
        0,
    ),
    'RetinaNet': (
        'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py',
        ['neck[:]', 'bbox_head.retina_reg'],
        20,
    ),
    'PSPNet': (
        'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py',
        # The auxiliary head, which is not run, keeps its own.
        ['decode_head.conv_seg', 'backbone[2]'],
        27,
    ),
}


def norms_in(network):
    norms = torch.nn.modules.batchnorm._BatchNorm
    return [m for m in network.modules() if isinstance(m, norms)]


def moved(found, expected):
    """The largest difference of any tap, relative to its norm."""
    assert found.keys() == expected.keys()
    return max(
        (torch.dist(a, b) / b.norm()).item()
        for tap in expected
        for a, b in zip(found[tap], expected[tap], strict=True)
    )


@pytest.mark.parametrize('family', FAMILIES)
def test_fast_teachers_yield_the_same(family, tmp_path, log):
    config, taps, folded = FAMILIES[family]
    config = load_config(config)
    if family == 'Swin':
        arch = dict(embed_dims=24, depths=[1] * 4, num_heads=[3] * 4)
        config.model.backbone.update(
            img_size=64, arch=arch, pad_small_map=True
        )
        config.model.head.in_channels = 24 * 8
    network = FrozenTeacher(config, None).network
    path = saved(tmp_path, with_statistics(network))
    settings = dict(config=config, checkpoint=path)
    plain = build_teacher(taps, (64, 64), **settings, **PLAIN)
    fast = build_teacher(taps, (64, 64), **settings, **FAST)
    before, after = (len(norms_in(t.network)) for t in (plain, fast))
    assert before - after == folded
    assert f'{folded} batch norms folded' in log.text
    images = torch.rand(2, 3, 64, 64)
    expected = plain(images, taps)
    assert moved(fast(images, taps), expected) <= 1e-4
    # The check can fail: half precision is another thing.
    fast.dtype = torch.bfloat16
    assert 1e-3 < moved(fast(images, taps), expected) < 0.1


@pytest.fixture
def checkpoint(tmp_path):
    """Of the tiny teacher, with the statistics of a trained one."""
    return saved(tmp_path, with_statistics(frozen().network))


@pytest.fixture
def tiny(checkpoint):
    """Build the tiny teacher with some switches, the others off."""

    def function(*taps, **switches):
        settings = tiny_recipes.teacher(checkpoint=checkpoint)
        return build_teacher(list(taps) or TAPS, **settings | PLAIN | switches)

    return function


TAPPED = [
    'backbone.conv1',
    'backbone.bn1@input',
    'backbone.layer2.0.conv2',
    'backbone.layer2.0.downsample.1',
]


@pytest.mark.parametrize('tap', TAPPED)
def test_a_tapped_module_is_not_folded(tiny, tap):
    plain, fast = tiny(tap), tiny(tap, fold_batch_norm=True)
    assert len(norms_in(fast.network)) == 1
    path = tap.removesuffix('@input').replace('conv', 'bn')
    assert norms_in(fast.network) == [fast.network.get_submodule(path)]
    images = torch.rand(2, 3, 16, 16)
    assert moved(fast(images, [tap]), plain(images, [tap])) <= 1e-4


def test_a_tap_around_a_pair_does_not_hinder(tiny):
    taps = ['backbone.layer2.0', 'backbone.layer2.0.downsample']
    fast = tiny(*taps, fold_batch_norm=True)
    assert not norms_in(fast.network)
    images = torch.rand(2, 3, 16, 16)
    assert moved(fast(images, taps), tiny(*taps)(images, taps)) <= 1e-4


def test_switches_can_be_off(tiny, checkpoint):
    network = tiny().network
    state = torch.load(checkpoint, weights_only=True)
    assert network.state_dict().keys() == state.keys()
    assert network.backbone.conv1.weight.is_contiguous()


def test_both_are_on_by_default_where_the_check_passes(checkpoint, tiny, log):
    teacher = build_teacher(**tiny_recipes.teacher(checkpoint=checkpoint))
    assert ' batch norms folded, channels last' in log.text
    assert teacher.channels_last and not norms_in(teacher.network)
    fast = tiny(**FAST)
    images = torch.rand(2, 3, 16, 16)
    assert moved(teacher(images, TAPS), fast(images, TAPS)) == 0


def test_a_network_without_batch_norm_stays_as_it_is():
    network = nn.Sequential(
        OrderedDict(conv=nn.Conv2d(3, 4, 3), relu=nn.ReLU())
    )
    teacher = FrozenTeacher(module=lambda: network, checkpoint=None)
    teacher.attach(['relu'], (3, 16, 16))
    teacher.init_weights()
    assert not teacher.channels_last
    assert network.conv.weight.is_contiguous()


def test_a_module_that_is_given_built_stays_as_it_is():
    """Others may hold it."""
    network = frozen().network
    with_statistics(network)
    teacher = FrozenTeacher(module=network)
    teacher.attach(['head.fc'], (3, 16, 16))
    teacher.init_weights()
    assert norms_in(network) and not teacher.channels_last


def test_a_random_teacher_stays_as_it_is():
    """Weights may be loaded into it later."""
    teacher = build_teacher(**tiny_recipes.teacher())
    assert norms_in(teacher.network) and not teacher.channels_last


def test_what_does_not_run_on_a_cpu_stays_as_it_is(checkpoint, monkeypatch):
    teacher = frozen(checkpoint=checkpoint)
    teacher.attach(['head.fc'], (3, 16, 16))

    def refuse(*args, **kwargs):
        raise RuntimeError('not implemented for this type')

    monkeypatch.setattr(teacher.network.backbone, 'forward', refuse)
    teacher.init_weights()
    assert norms_in(teacher.network) and not teacher.channels_last


def test_fast_teacher_is_evaluated_as_the_plain_one(tiny):
    inputs = torch.randint(0, 256, (4, 3, 16, 16)).byte()
    scores = [
        torch.stack(
            [
                sample.pred_score
                for sample in teacher.network.val_step(
                    dict(inputs=inputs, data_samples=None)
                )
            ]
        )
        for teacher in (tiny(), tiny(**FAST, dtype='bfloat16'))
    ]
    assert torch.allclose(*scores, atol=1e-4)
    assert scores[0].std() > 1e-3


def test_fast_teacher_follows_dtype_and_device(tiny):
    plain, fast = tiny(), tiny(**FAST)
    images = torch.rand(2, 3, 16, 16)
    taps = ['backbone[-1]']
    expected = plain.double()(images.double(), taps)
    assert moved(fast.double()(images.double(), taps), expected) <= 1e-6
    weight = fast.network.backbone.layer2[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    fast.to('meta')
    assert fast.network.backbone.conv1.weight.is_meta


def test_weights_are_loaded_once_where_norms_are_folded(tiny):
    teacher = tiny(**FAST)
    images, taps = torch.rand(2, 3, 16, 16), ['head.fc']
    before = teacher(images, taps)
    teacher.init_weights()
    assert moved(teacher(images, taps), before) == 0


def test_maps_are_handed_on_channels_last(tiny):
    images = torch.rand(2, 3, 16, 16)
    (feature,) = tiny(**FAST)(images, ['backbone[-1]'])['backbone[-1]']
    assert feature.is_contiguous(memory_format=torch.channels_last)


def dtype_inside(teacher, images):
    seen = []
    handle = teacher.network.backbone.layer3.register_forward_hook(
        lambda module, args, output: seen.append(output.dtype)
    )
    tensors = teacher(images, TAPS)
    handle.remove()
    (inside,) = seen
    return inside, {t.dtype for levels in tensors.values() for t in levels}


@pytest.mark.parametrize('outer', [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize('dtype', [None, 'bfloat16', 'float16'])
def test_dtype_is_its_own_under_any_autocast(tiny, dtype, outer):
    teacher = tiny(**FAST, dtype=dtype)
    images = torch.rand(2, 3, 16, 16)
    with torch.autocast('cpu', outer, enabled=outer is not None):
        inside, handed_on = dtype_inside(teacher, images)
    if dtype is None:
        assert inside == (outer or torch.float32)
    else:
        assert inside == getattr(torch, dtype)
        assert handed_on == {torch.float32}


def test_what_half_precision_costs_is_said(tiny, log):
    tiny(dtype='bfloat16')
    assert re.search(r'Teacher in torch.bfloat16: .* by 0\.\d%', log.text)


@pytest.mark.exact
def test_compiled_forward_has_one_graph(tiny, monkeypatch):
    """The taps' hooks included, for any number of steps."""
    torch._dynamo.reset()
    compiled = []

    def count(graph, examples):
        compiled.append(graph)
        return graph

    whole = functools.partial(torch.compile, backend=count, fullgraph=True)
    monkeypatch.setattr(torch, 'compile', whole)
    taps = [*TAPS, 'backbone.layer3.0.relu@input[-1]']
    teacher = tiny(*taps, **FAST, compile=True)
    expected = tiny(*taps)
    for _ in range(3):
        images = torch.rand(2, 3, 16, 16)
        assert moved(teacher(images, taps), expected(images, taps)) <= 1e-4
    assert len(compiled) == 1


@pytest.mark.exact
@pytest.mark.slow
@pytest.mark.parametrize('dtype', [None, 'bfloat16'])
def test_compiled_forward_yields_the_same(tiny, dtype):
    teacher = tiny(**FAST, compile=True, dtype=dtype)
    images = torch.rand(2, 3, 16, 16)
    difference = moved(teacher(images, TAPS), tiny()(images, TAPS))
    assert difference <= (1e-4 if dtype is None else 0.05)


@pytest.mark.parametrize(
    'switch, value, cure',
    [
        ('fold_batch_norm', 'yes', 'True, False or None'),
        ('channels_last', 1, 'True, False or None'),
        ('compile', 'inductor', 'True or False'),
        ('dtype', 'bf16', "'bfloat16', 'float16'"),
        ('dtype', [], "'bfloat16', 'float16'"),
    ],
)
def test_unknown_values_are_errors(switch, value, cure):
    with pytest.raises(ValueError) as error:
        frozen(**{switch: value})
    assert f'`teacher.{switch}` is {value!r}' in str(error.value)
    assert cure in str(error.value)


@pytest.mark.parametrize('said', [True, None])
def test_a_layout_that_a_network_cannot_take(checkpoint, said):
    switches = dict(fold_batch_norm=said, channels_last=said)
    teacher = frozen(checkpoint=checkpoint, **switches)
    teacher.attach(['head.fc'], (3, 16, 16))
    teacher.network.neck.forward = lambda maps: (
        maps[-1].view(len(maps[-1]), -1)[:, :24],
    )
    if said:
        with pytest.raises(ValueError, match='teacher.channels_last.*Leave'):
            teacher.init_weights()
        return
    teacher.init_weights()
    assert not teacher.channels_last
    assert teacher.network.backbone.conv1.weight.is_contiguous()
    assert not norms_in(teacher.network)
    teacher(torch.rand(2, 3, 16, 16), ['head.fc'])


@pytest.mark.parametrize('said', [True, None])
def test_a_network_that_folding_would_change(checkpoint, said):
    switches = dict(fold_batch_norm=said, channels_last=said)
    teacher = frozen(checkpoint=checkpoint, **switches)
    teacher.attach(['head.fc'], (3, 16, 16))
    # Beyond what a run can see: a function of whether the norm is there.
    pool = teacher.network.neck.forward
    teacher.network.neck.forward = lambda maps: tuple(
        value * (1 + len(norms_in(teacher.network))) for value in pool(maps)
    )
    if said:
        with pytest.raises(ValueError, match='teacher.fold_batch_norm` moves'):
            teacher.init_weights()
        return
    before = len(norms_in(teacher.network))
    teacher.init_weights()
    assert len(norms_in(teacher.network)) == before
    assert teacher.channels_last
