import pytest

from mmdiffkd.analysis.stock_recipes import (
    default_taps,
    distilled,
    reduce,
)
from mmdiffkd.utils import load_config


@pytest.mark.parametrize(
    ('name', 'tap'),
    [
        ('mmpretrain::resnet/resnet18_8xb32_in1k.py', 'backbone[-1]'),
        ('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py', 'neck[:]'),
        ('mmdet::faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py', None),
        ('mmdet::detr/detr_r50_8xb2-150e_coco.py', 'backbone[-1]'),
        (
            'mmpretrain::convnext/convnext-tiny_32xb128_in1k.py',
            'backbone.stages.3',
        ),
        (
            'mmseg::fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024.py',
            'decode_head.conv_seg',
        ),
        (
            'mmseg::ocrnet/ocrnet_hr18_4xb2-40k_cityscapes-512x1024.py',
            'decode_head.1.conv_seg',
        ),
    ],
)
def test_default_taps(name, tap):
    assert default_taps(load_config(name)) == [tap or 'backbone[-1]']


def test_reduced():
    config = load_config('mmdet::yolox/yolox_s_8xb8-300e_coco.py')
    config.model.backbone.init_cfg = dict(type='Pretrained', checkpoint='x')
    reduce(config)
    mosaic, affine = config.train_dataloader.dataset.pipeline[:2]
    assert mosaic.img_scale == (160, 160)
    assert affine.border == (-80, -80)
    assert affine.scaling_ratio_range == (0.1, 2)
    (augment,) = config.model.data_preprocessor.batch_augments
    assert augment.random_size_range == (120, 200)
    assert augment.size_divisor == 32
    assert config.model.backbone.init_cfg is None
    assert config.model.backbone.widen_factor == 0.5
    assert config.train_cfg.max_epochs == 2
    assert config.custom_hooks[0].num_last_epochs == 0
    config = load_config(
        'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'
    )
    reduce(config)
    assert config.model.pretrained is None
    assert config.model.data_preprocessor.size == (64, 128)
    assert config.train_cfg.max_iters == 2
    config = load_config('mmpretrain::resnet/resnet18_8xb32_in1k.py')
    reduce(config)
    assert config.train_dataloader.dataset.pipeline[1].scale == 224
    assert config.train_dataloader.batch_size == 2


def test_the_documented_lines(tmp_path):
    name = 'mmpretrain::deit/deit-small_4xb256_in1k.py'
    recipe = tmp_path / 'recipe.py'
    recipe.write_text(
        f'_base_ = {name!r}\n'
        "optim_wrapper = dict(constructor='TheirConstructor')\n"
    )
    taps = ['backbone.ln1', 'head']
    config = distilled(str(recipe), taps, tmp_path / 'lines.py')
    assert [e.at for e in config.model.distill.values()] == taps
    assert config.model.student.head == load_config(name).model.head
    assert config.model.teacher == dict(config=str(recipe), checkpoint=None)
    optim = config.optim_wrapper
    assert optim.constructor == 'mmdiffkd.OptimWrapperConstructor'
    assert optim.paramwise_cfg.student_constructor == 'TheirConstructor'
    assert optim.clip_grad.max_norm == 5.0
    assert config.default_hooks.checkpoint.type == 'mmdiffkd.CheckpointHook'
