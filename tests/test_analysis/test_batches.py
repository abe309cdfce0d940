import pytest
import torch
from torch import nn

from mmdiffkd.analysis.batches import make_batch, package_of
from mmdiffkd.analysis.benchmark_step import build_distiller
from mmdiffkd.analysis.timing import Settings
from mmdiffkd.utils import load_config


def package_recipe(tmp_path, name, at, size):
    """A network of a package that teaches its own like."""
    path = tmp_path / 'package.py'
    path.write_text(
        f"""
_base_ = {name!r}
model = dict(
    _delete_=True,
    type='mmdiffkd.Distiller',
    student=_base_.model,
    teacher=dict(config={name!r}, checkpoint=None),
    distill=dict(entry=dict(at={at!r}, loss=dict(type='MSELoss'))),
    input_size={size},
)
"""
    )
    return path


@pytest.mark.parametrize(
    'name, at, levels',
    [
        ('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py', 'neck[:]', 5),
        ('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 'neck[:]', 5),
        (
            'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py',
            'decode_head.conv_seg',
            1,
        ),
    ],
)
def test_every_task_has_a_batch(tmp_path, name, at, levels):
    path = package_recipe(tmp_path, name, at, 64)
    settings = Settings(torch.device('cpu'))
    config = load_config(path)
    model = build_distiller(config, settings)
    inputs, samples = make_batch(model, 2, (64, 96))
    assert inputs.shape == (2, 3, 64, 96)
    losses = model(inputs, samples, mode='loss')
    assert 'distill.entry.loss_kd' in losses
    assert len(model.distill['entry'].shapes) == levels
    total, _ = model.parse_losses(losses)
    assert torch.isfinite(total)
    task_losses = [k for k in losses if not k.startswith('distill')]
    assert len(task_losses) >= 2


def test_a_model_of_another_package():
    with pytest.raises(ValueError, match='Linear is derived from no model'):
        package_of(nn.Linear(1, 1))
