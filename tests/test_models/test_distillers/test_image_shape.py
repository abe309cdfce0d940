import pytest
import tiny_recipes
import torch
from mmpretrain.models import ClsDataPreprocessor
from torch import nn

from mmdiffkd.models.distillers.image_shape import find_shape, image_shapes
from mmdiffkd.models.distillers.taps import Taps


def shape_of(network, **given):
    """The shape of the images that a network without taps takes."""
    taps = Taps(network, [], 'student')
    return find_shape(network, taps, image_shapes(network, **given))[0]


def test_impossible_size_names_the_key(build):
    network = build(tiny_recipes.classifier())
    network.backbone.forward = lambda x: exec('raise TypeError("no size")')
    message = '3 x 16 x 16.*no size.*3 x 32 x 32 and says the same.*input_size'
    with pytest.raises(ValueError, match=message):
        shape_of(network, input_size=16)


class Fixed(nn.Module):
    """Takes images of one shape."""

    def __init__(self, *shape):
        super().__init__()
        self.shape = shape
        self.layer = nn.Identity()
        self.weight = nn.Parameter(torch.ones(()))

    def extract_feat(self, inputs):
        found = tuple(inputs.shape[1:])
        assert found == self.shape, f'{found} is not {self.shape}'
        return self.layer(inputs)


@pytest.mark.parametrize(
    'shape, cure',
    [
        ((3, 128, 128), r'input_size=\(128, 128\)'),
        ((3, 96, 80), r'Nor does it run'),
    ],
)
def test_the_cure_was_tried(shape, cure):
    message = rf'(?s)3 x 16 x 16\. .* is not .*{cure}'
    with pytest.raises(ValueError, match=message):
        shape_of(Fixed(*shape), input_size=16)


def test_a_size_that_the_network_declares_is_tried():
    network = Fixed(3, 96, 80)
    network.layer.img_size = (96, 80)
    assert shape_of(network) == (3, 96, 80)


@pytest.mark.parametrize('channels', [1, 2, 3, 4, 7])
def test_channels_are_those_of_the_first_convolution(build, channels):
    config = tiny_recipes.classifier()
    config['backbone']['in_channels'] = channels
    config['data_preprocessor'] = dict(type='ClsDataPreprocessor')
    assert shape_of(build(config), input_size=16) == (channels, 16, 16)


def test_channels_are_those_of_the_mean():
    class Behind(nn.Module):
        """Rearranges its images before the first convolution."""

        def __init__(self):
            super().__init__()
            self.data_preprocessor = ClsDataPreprocessor(
                mean=[1.0] * 4, std=[1.0] * 4
            )
            self.stem = nn.Conv2d(16, 8, 1)

        def extract_feat(self, inputs):
            return self.stem(nn.functional.pixel_unshuffle(inputs, 2))

    assert shape_of(Behind(), input_size=16) == (4, 16, 16)


@pytest.mark.parametrize(
    'given, message',
    [
        (dict(input_shape=(16, 16)), '`input_shape` is .16, 16.*channels, h'),
        (dict(input_shape=(3, 0, 16)), '`input_shape` is'),
        (dict(input_shape=(16, 16, 3)), 'The order is .channels, height'),
        (dict(input_shape=(8, 16, 16, 1)), 'The order is .channels, height'),
        (dict(input_shape=16), '`input_shape` is 16'),
        (dict(input_shape=(3, 9, 9), input_size=9), 'Leave one out'),
    ],
)
def test_shapes_that_make_no_sense(given, message):
    with pytest.raises(ValueError, match=message):
        image_shapes(Fixed(3, 16, 16), **given)
