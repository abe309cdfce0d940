import pytest
import torch
from torch import nn

from mmdiffkd.models.backbones.stages import StagedBackbone


def make(out_indices):
    stages = {'first': nn.AvgPool2d(2), 'second': nn.AvgPool2d(2)}
    return StagedBackbone(nn.Conv2d(3, 4, 1), stages, out_indices)


@pytest.mark.parametrize('out_indices', [(0,), (1,), (0, 1), (1, 0)])
def test_maps_asked_for_are_returned_in_the_order_of_the_stages(out_indices):
    maps = make(out_indices)(torch.rand(2, 3, 8, 8))
    assert [x.shape[-1] for x in maps] == [
        8 // 2 ** (i + 1) for i in sorted(out_indices)
    ]


@pytest.mark.parametrize('out_indices', [(2,), (-1,), (0, 5)])
def test_unknown_stages_are_named(out_indices):
    with pytest.raises(ValueError, match=r'0 to 1 \(first, second\)') as error:
        make(out_indices)
    assert str(out_indices) in str(error.value)


def test_stages_are_found_by_name():
    assert isinstance(make((0,)).get_submodule('second'), nn.AvgPool2d)
