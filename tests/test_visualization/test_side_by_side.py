import numpy as np
import pytest

from mmdiffkd.visualization import side_by_side


def plain(*colour, size=(40, 90)):
    return np.full((*size, 3), colour, np.uint8)


def test_pictures_stand_as_they_are():
    generator = np.random.default_rng(0)
    shape = 2, 3, 40, 90, 3
    rows = generator.integers(0, 256, shape, 'uint8')
    drawn = side_by_side(rows, ['one', 'two', 'three'])
    # Margins of 6 pixels around and between, 32 above for the captions.
    assert drawn.shape == (32 + 2 * 46 + 6, 6 + 3 * 96, 3)
    for i in range(2):
        for j in range(3):
            top, left = 32 + 46 * i, 6 + 96 * j
            found = drawn[top : top + 40, left : left + 90]
            assert (found == rows[i, j]).all()


def test_captions_and_legend_are_drawn():
    rows = [[plain(9, 99, 199)]]
    bare = side_by_side(rows, [''])
    assert (bare[:30] == 255).all()
    captioned = side_by_side(rows, ['teacher'])
    assert captioned.shape == bare.shape and (captioned[:30] < 99).any()
    with_legend = side_by_side(rows, [''], legend=[('a', (200, 10, 20))])
    assert with_legend.shape[0] == bare.shape[0] + 28
    assert (with_legend[-28:] == (200, 10, 20)).all(axis=2).any()


@pytest.mark.parametrize(
    'rows',
    [
        [],
        [[plain(0, 0, 0)]],
        [[plain(0, 0, 0), plain(0, 0, 0)], [plain(0, 0, 0)]],
        [[plain(0, 0, 0), plain(0, 0, 0, size=(40, 91))]],
    ],
)
def test_what_makes_no_grid_is_refused(rows):
    with pytest.raises(ValueError, match='2 captions'):
        side_by_side(rows, ['a', 'b'])
