import runpy
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS

from mmdiffkd.utils.config import load_config

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'model_converters' / 'torchvision_to_mmpretrain.py'


def run_tool(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
    runpy.run_path(str(TOOL), run_name='__main__')


def randomised(network):
    """Weights with which every layer, batch norm included, matters."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if tensor.dtype.is_floating_point and tensor.ndim == 1:
            noise = torch.rand(tensor.shape, generator=generator)
            tensor.copy_(noise + 0.5 if 'var' in name else noise)
    return network.eval()


@pytest.mark.parametrize('depth', [18, 50])
def test_converted_weights_give_the_same_logits(monkeypatch, tmp_path, depth):
    torch.manual_seed(0)
    network = randomised(getattr(torchvision.models, f'resnet{depth}')())
    source = tmp_path / 'torchvision.pth'
    output = tmp_path / 'new folder' / 'mmpretrain.pth'
    torch.save(network.state_dict(), source)
    config = f'mmpretrain::resnet/resnet{depth}_8xb32_in1k.py'

    run_tool(monkeypatch, config, source, output)

    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(load_config(config).model).eval()
    weights = torch.load(output, weights_only=True)['state_dict']
    model.load_state_dict(weights, strict=True)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = network(images)
        logits = model.head(model.extract_feat(images))
    assert expected.std() > 0.1
    torch.testing.assert_close(logits, expected)


def test_another_depth_is_refused(monkeypatch, tmp_path):
    source, output = tmp_path / 'in.pth', tmp_path / 'out.pth'
    torch.save(torchvision.models.resnet18().state_dict(), source)
    with pytest.raises(ValueError, match='layer1.2'):
        run_tool(
            monkeypatch,
            'mmpretrain::resnet/resnet34_8xb32_in1k.py',
            source,
            output,
        )
    assert not output.exists()
