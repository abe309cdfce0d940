import copy

import pytest
import torch
from mmdet.models import DetDataPreprocessor, MultiBranchDataPreprocessor
from mmengine.model import BaseDataPreprocessor, ImgDataPreprocessor
from mmpretrain.models import (
    ClsDataPreprocessor,
    SelfSupDataPreprocessor,
    TwoNormDataPreprocessor,
    VideoDataPreprocessor,
)
from mmseg.models import SegDataPreProcessor
from no_sync import NoSynchronisation
from torch import nn

from mmdiffkd.models.distillers.normalization import (
    Conversion,
    Normalization,
    channels_of_images,
    check_channels,
    describe,
    match_preprocessors,
)

NUMBERS = dict(mean=[120.0, 118.5, 110.0], std=[60.0, 58.0, 57.25])
ONE = dict(mean=[127.5], std=[64.0])
KNOWN = {
    'none': None,
    'base': BaseDataPreprocessor(),
    'raw': ImgDataPreprocessor(),
    'raw, padded': DetDataPreprocessor(pad_size_divisor=2),
    'raw, swapped': ClsDataPreprocessor(to_rgb=True),
    'zeros': ImgDataPreprocessor(mean=[0, 0, 0], std=[1, 1, 1]),
    'integers': ImgDataPreprocessor(mean=[1, 2, 3], std=[1, 1, 1]),
    'unit': ImgDataPreprocessor(mean=[0.0] * 3, std=[255.0] * 3),
    'mmengine': ImgDataPreprocessor(**NUMBERS, bgr_to_rgb=True),
    'mmengine, one value': ImgDataPreprocessor(**ONE, rgb_to_bgr=True),
    'one std': ImgDataPreprocessor(mean=NUMBERS['mean'], std=[58.0]),
    'mmpretrain': ClsDataPreprocessor(**NUMBERS),
    'mmpretrain, swapped': ClsDataPreprocessor(**NUMBERS, to_rgb=True),
    'mmdet': DetDataPreprocessor(**NUMBERS, bgr_to_rgb=True),
    'mmdet, branches': MultiBranchDataPreprocessor(
        dict(type='mmdet.DetDataPreprocessor', **NUMBERS, bgr_to_rgb=True)
    ),
    'mmseg': SegDataPreProcessor(**NUMBERS, bgr_to_rgb=True),
    'selfsup': SelfSupDataPreprocessor(**NUMBERS, to_rgb=True),
}


def images(channels=3, size=(4, 4)):
    return torch.randint(0, 256, (2, channels, *size)).byte()


def treated(preprocessor, raw):
    """What a preprocessor itself makes of images."""
    if preprocessor is None or type(preprocessor) is BaseDataPreprocessor:
        return raw.float()
    data = dict(inputs=raw.clone(), data_samples=None)
    return preprocessor(data, False)['inputs']


@pytest.mark.parametrize('name', KNOWN)
def test_reads_what_a_preprocessor_does(name):
    found = Normalization.of(KNOWN[name])
    raw = images()
    values = raw.float()
    if found.swap:
        values = values[:, [2, 1, 0]]
    mean, std = (
        torch.tensor(x)[:, None, None] for x in (found.mean, found.std)
    )
    assert torch.equal((values - mean) / std, treated(KNOWN[name], raw))


@pytest.mark.parametrize('teacher', KNOWN)
@pytest.mark.parametrize('student', KNOWN)
def test_converts_the_student_into_the_teacher(student, teacher):
    raw = images()
    seen, expected = (treated(KNOWN[n], raw) for n in (student, teacher))
    conversion = Conversion.between(
        *(Normalization.of(KNOWN[n]) for n in (student, teacher))
    )
    if conversion is None:
        assert torch.equal(seen, expected)
    else:
        assert not torch.equal(seen, expected)
        result = conversion(seen)
        assert torch.allclose(result, expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize('channels', [1, 3, 4, 6])
def test_values_for_all_channels_fit_any_number(channels):
    raw = images(channels)
    student, teacher = ClsDataPreprocessor(), ClsDataPreprocessor(**ONE)
    for pair in ((student, teacher), (teacher, student)):
        conversion = Conversion.between(*map(Normalization.of, pair))
        seen, expected = (treated(each, raw) for each in pair)
        assert torch.allclose(conversion(seen), expected, atol=1e-3)


@pytest.mark.parametrize('channels', [1, 3, 4])
def test_only_three_channels_are_swapped(channels):
    """As mmpretrain's preprocessor does it."""
    pair = ClsDataPreprocessor(**ONE), ClsDataPreprocessor(**ONE, to_rgb=True)
    raw = images(channels)
    seen, expected = (treated(each, raw) for each in pair)
    conversion = Conversion.between(*map(Normalization.of, pair))
    assert torch.allclose(conversion(seen), expected, atol=1e-5)


@pytest.mark.parametrize('format_shape', ['NCHW', 'NCTHW'])
def test_clips_are_converted_along_their_channels(format_shape):
    student, teacher = (
        VideoDataPreprocessor(
            **NUMBERS, to_rgb=to_rgb, format_shape=format_shape
        )
        for to_rgb in (True, False)
    )
    shape = (2, 3, 5, 4, 4) if format_shape == 'NCTHW' else (2, 5, 3, 4, 4)
    raw = torch.randint(0, 256, shape).byte()
    seen, expected = (treated(each, raw) for each in (student, teacher))
    conversion = Conversion.between(*map(Normalization.of, (student, teacher)))
    assert torch.allclose(conversion(seen), expected, atol=1e-4)


def test_other_axes_are_an_error():
    frames = VideoDataPreprocessor(**NUMBERS, format_shape='NCHW')
    clips = VideoDataPreprocessor(**ONE, format_shape='NCTHW')
    with pytest.raises(ValueError, match='axis -3.*axis -4.*format_shape'):
        Conversion.between(*map(Normalization.of, (frames, clips)))


def test_raw_clips_have_their_channels_where_the_teacher_has():
    teacher = VideoDataPreprocessor(**NUMBERS, format_shape='NCTHW')
    raw = torch.randint(0, 256, (2, 3, 5, 4, 4)).byte()
    conversion = Conversion.between(Normalization(), Normalization.of(teacher))
    expected = treated(teacher, raw)
    assert torch.allclose(conversion(raw.float()), expected, atol=1e-4)


def test_opposite_orders_of_four_channels_are_an_error():
    four = dict(mean=[1.0] * 4, std=[2.0] * 4)
    pair = (ClsDataPreprocessor(**four, to_rgb=rgb) for rgb in (True, False))
    with pytest.raises(ValueError, match='opposite order.*4 channels. Use'):
        Conversion.between(*map(Normalization.of, pair))


def test_one_channel_never_becomes_three():
    """A broadcast would do it without a word."""
    conversion = Conversion.between(
        Normalization(), Normalization.of(KNOWN['mmpretrain'])
    )
    with pytest.raises(ValueError, match="3 channels, the student's 1"):
        conversion(torch.rand(2, 1, 4, 4))


def test_other_numbers_of_channels_are_an_error():
    four = ClsDataPreprocessor(mean=[1.0] * 4, std=[2.0] * 4)
    with pytest.raises(ValueError, match="4 channels, the student's 3"):
        Conversion.between(*map(Normalization.of, (KNOWN['mmpretrain'], four)))
    check_channels(None, 3)
    check_channels(3, 3)


class OfMyOwn(BaseDataPreprocessor):
    """Of which nothing is known."""


class WithoutValues(BaseDataPreprocessor):
    _enable_normalize = True


@pytest.mark.parametrize(
    'preprocessor',
    [
        OfMyOwn(),
        WithoutValues(),
        TwoNormDataPreprocessor(
            **NUMBERS, second_mean=[1.0], second_std=[2.0]
        ),
        nn.Identity(),
    ],
)
def test_what_is_not_known_is_not_guessed(preprocessor):
    assert Normalization.of(preprocessor) is None
    name = type(preprocessor).__name__
    assert describe(preprocessor) == f'{name} (not known)'


def test_words():
    assert describe(ImgDataPreprocessor(**NUMBERS, bgr_to_rgb=True)) == (
        'mean [120, 118.5, 110], std [60, 58, 57.25], red and blue swapped'
    )
    assert describe(DetDataPreprocessor(pad_size_divisor=32)) == (
        'no normalisation (raw values, usually 0 to 255), channels as loaded'
    )


@pytest.mark.parametrize(
    'layers, preprocessor, channels',
    [
        ([nn.Conv2d(1, 4, 3)], ClsDataPreprocessor(**ONE), [1, 3]),
        ([nn.Conv2d(3, 4, 3)], ClsDataPreprocessor(**ONE), [3]),
        ([nn.Conv2d(3, 4, 3), nn.Conv2d(1, 4, 3)], None, [3]),
        # A gate may be registered before the stem.
        ([nn.Conv2d(1, 4, 3)], ImgDataPreprocessor(**NUMBERS), [1, 3]),
        # As YOLOX, which puts four pixels beside each other first.
        ([nn.Conv2d(12, 4, 3)], ImgDataPreprocessor(), [12, 3]),
        ([nn.Conv2d(12, 4, 3)], ImgDataPreprocessor(**NUMBERS), [3, 12]),
        ([nn.Linear(2, 2)], ClsDataPreprocessor(**ONE), [3]),
        ([nn.Linear(2, 2)], OfMyOwn(), [3]),
    ],
)
def test_channels_of_images(layers, preprocessor, channels):
    network = nn.Sequential(*layers)
    network.data_preprocessor = preprocessor
    assert channels_of_images(network) == channels


def test_conversion_lets_the_device_run_on():
    conversion = Conversion.between(
        *(Normalization.of(KNOWN[n]) for n in ('mmengine', 'unit'))
    )
    values = torch.rand(2, 3, 4, 4)
    with NoSynchronisation():
        conversion(values)
    assert copy.deepcopy(conversion)(values).shape == values.shape


def test_a_deviation_of_zero_is_an_error():
    flat = Normalization(mean=(1.0,), std=(0.0,))
    with pytest.raises(ValueError, match='`teacher.data_preprocessor.std` is'):
        Conversion.between(Normalization(), flat)
    with pytest.raises(ValueError, match='`student.data_preprocessor.std` is'):
        Conversion.between(flat, Normalization())


@pytest.mark.parametrize('scale, words', [(1 / 255, True), (1, False)])
def test_numbers_for_images_from_0_to_1_are_a_warning(log, scale, words):
    teacher = {k: [x * scale for x in v] for k, v in NUMBERS.items()}
    pair = ImgDataPreprocessor(**ONE), ImgDataPreprocessor(**teacher)
    match_preprocessors(*pair)
    assert ('far apart scales' in log.text) == words
