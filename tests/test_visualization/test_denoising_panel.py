import math

import matplotlib
import numpy as np
import pytest
import torch

from mmdiffkd.visualization import attention, denoising_panel, strength


def make_images(count):
    return [np.full((32, 32, 3), 40 * i, np.uint8) for i in range(count)]


def make_trajectory(count, stages=4, size=(4, 4)):
    generator = torch.Generator().manual_seed(0)
    return [
        (f'stage {i}', torch.randn(count, 8, *size, generator=generator))
        for i in range(stages)
    ]


def test_attention_by_hand():
    # The means over two channels are 0 and ln(3) / 2; over tau = 0.5 their
    # softmax is 1/4 and 3/4, times 2 positions.
    feature = torch.tensor([[-1.0, 0.0], [1.0, math.log(3)]])
    value = attention(feature.view(1, 2, 1, 2))
    torch.testing.assert_close(value, torch.tensor([[[0.5, 1.5]]]))


def test_attention_of_a_flat_map_is_one():
    value = attention(torch.full((2, 3, 5, 4), 7.0))
    torch.testing.assert_close(value, torch.ones(2, 5, 4))


def test_attention_takes_half_precision():
    feature = torch.randn(1, 4, 3, 3)
    assert attention(feature.half()).dtype == torch.float32


def test_strength_by_hand():
    feature = torch.tensor([[-3.0, 0.0], [4.0, 0.0]]).view(1, 2, 1, 2)
    expected = torch.tensor([[[12.5**0.5, 0.0]]])
    torch.testing.assert_close(strength(feature), expected)
    assert strength(feature.half()).dtype == torch.float32


def test_attention_refuses_a_temperature():
    with pytest.raises(ValueError, match='temperature=0'):
        attention(torch.zeros(2, 8, 4, 4), temperature=0)


def test_panel_is_a_picture_and_nothing_else_moves():
    torch.manual_seed(3)
    np.random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    settings = dict(matplotlib.rcParams)
    arguments = make_images(2), make_trajectory(2, size=(3, 6))
    panel = denoising_panel(*arguments, title='title')
    assert panel.dtype == np.uint8
    assert panel.ndim == 3 and panel.shape[2] == 3
    assert np.array_equal(panel, denoising_panel(*arguments, title='title'))
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
    assert settings == dict(matplotlib.rcParams)


def test_panel_grows_with_images_and_stages():
    small = denoising_panel(make_images(1), make_trajectory(1, 3)).shape
    large = denoising_panel(make_images(3), make_trajectory(3, 6)).shape
    assert large[0] > 2 * small[0]
    assert large[1] > 1.5 * small[1]


def test_panel_has_the_proportions_of_the_images():
    wide = [np.zeros((16, 32, 3), np.uint8)] * 3
    trajectory = make_trajectory(3, size=(2, 4))
    low = denoising_panel(wide, trajectory, dpi=100)
    high = denoising_panel(make_images(3), trajectory, dpi=100)
    assert low.shape[1] == high.shape[1]
    # Three rows of half of 1.16 inches less.
    assert high.shape[0] - low.shape[0] == 174


@pytest.mark.parametrize('heat', ['strength', 'attention'])
def test_heat_maps_of_a_row_share_one_scale(heat):
    """A weak copy of the target must look weak, not like the target."""
    target = torch.full((1, 1, 2, 2), 0.5)
    target[..., 0, 0] = 2.0

    def colours(feature):
        """The colours that fill more than a tick or a letter does."""
        panel = denoising_panel(
            make_images(1), [('a', feature), ('target', target)], heat=heat
        )
        values, counts = np.unique(
            panel.reshape(-1, 3), axis=0, return_counts=True
        )
        return {tuple(v) for v in values[counts > 800].tolist()}

    same, weak = colours(target), colours(target / 3)
    assert len(weak) == len(same) + 2


@pytest.mark.parametrize(
    'images, trajectory, message',
    [
        (make_images(1), [], 'empty'),
        (make_images(2), make_trajectory(3), "'stage 0'"),
        (make_images(2), [('z', torch.zeros(2, 8))], r"'z'.*\(2, 8\)"),
        ([np.zeros((8, 8, 3))], make_trajectory(1), 'float64'),
        ([np.zeros((3, 8, 8), np.uint8)], make_trajectory(1), r'\(3, 8, 8\)'),
    ],
)
def test_panel_refuses_by_name(images, trajectory, message):
    with pytest.raises(ValueError, match=message):
        denoising_panel(images, trajectory)


def test_panel_refuses_an_unknown_heat():
    with pytest.raises(ValueError, match="heat='heat'.*'strength'"):
        denoising_panel(make_images(1), make_trajectory(1), heat='heat')
