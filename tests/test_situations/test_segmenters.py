"""Segmenters whose heads or labels are not the usual ones."""

import pytest
import torch
from distill_steps import PROJECTED, compared, distillation, pair
from tiny_segmenters import CLASSES, batch, distiller, segmenter, teacher

from mmdiffkd.utils import load_config

CLASS_MAPS = dict(
    maps=dict(at='decode_head.conv_seg', loss=dict(type='KLDivergence'))
)


def of_mmseg(name: str) -> dict:
    model = load_config(f'mmseg::{name}.py').model
    model._scope_ = 'mmseg'
    model.pretrained = None
    model.data_preprocessor.size = (64, 64)
    return model


def knet() -> dict:
    """K-Net with one stage that updates its kernels."""
    model = of_mmseg('knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512')
    fcn = segmenter('fcn')
    model.backbone = fcn.backbone
    model.auxiliary_head = fcn.auxiliary_head
    head = model.decode_head
    head.num_stages = 1
    head.kernel_generate_head = fcn.decode_head
    head.kernel_update_head = head.kernel_update_head[:1]
    update = head.kernel_update_head[0]
    update.update(
        num_classes=CLASSES,
        num_heads=2,
        feedforward_channels=8,
        in_channels=8,
        out_channels=8,
    )
    update.kernel_updator_cfg.update(
        in_channels=8, feat_channels=8, out_channels=8
    )
    return model


def two(make, **entries) -> dict:
    """A distiller of two networks of one kind."""
    return distiller(
        'fcn', entries, student=make(), teacher=teacher('fcn', model=make())
    )


def test_heads_of_knet(ready):
    entries = dict(
        maps=dict(
            at='decode_head.kernel_generate_head.conv_seg',
            loss=dict(type='KLDivergence'),
        ),
        feature=dict(at='backbone[-1]', **PROJECTED),
    )
    model = ready(two(knet, **entries))
    assert compared(model, batch(model)) == dict(
        maps=pair(2, CLASSES, 4, 4), feature=pair(2, 32, 4, 4)
    )


def test_whole_head_of_knet_is_refused(build):
    """In training it returns a map of every stage, else the last alone."""
    entry = dict(at='decode_head', loss=dict(type='KLDivergence'))
    with pytest.raises(
        ValueError, match='gives 2 tensors, the teacher.* gives 1'
    ):
        build(two(knet, maps=entry))


def mask2former() -> dict:
    """Mask2Former with a layer of either part."""
    model = of_mmseg(
        'mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024'
    )
    model.backbone = {**segmenter('fcn').backbone, 'strides': (1, 2, 2, 2)}
    model.backbone.dilations = (1, 1, 1, 1)
    head = model.decode_head
    head.update(
        in_channels=[4, 8, 16, 32],
        feat_channels=32,
        out_channels=32,
        num_classes=CLASSES,
        num_queries=4,
    )
    wide = dict(embed_dims=32, num_heads=2)
    feed_forward = dict(embed_dims=32, feedforward_channels=32)
    encoder = head.pixel_decoder.encoder
    encoder.num_layers = 1
    encoder.layer_cfg.self_attn_cfg.update(num_points=1, **wide)
    encoder.layer_cfg.ffn_cfg.update(feed_forward)
    decoder = head.transformer_decoder
    decoder.num_layers = 1
    decoder.layer_cfg.self_attn_cfg.update(wide)
    decoder.layer_cfg.cross_attn_cfg.update(wide)
    decoder.layer_cfg.ffn_cfg.update(feed_forward)
    for part in (head, head.pixel_decoder):
        part.positional_encoding.num_feats = 16
    head.loss_cls.class_weight = [1.0] * CLASSES + [0.1]
    head.train_cfg.num_points = 16
    return model


def test_backbone_of_mask2former(ready):
    entry = dict(at='backbone[-1]', **PROJECTED)
    model = ready(two(mask2former, feature=entry))
    assert compared(model, batch(model)) == dict(feature=pair(2, 32, 2, 2))


@pytest.mark.parametrize(
    'tap, shape',
    [
        ('decode_head.pixel_decoder.mask_feature', (2, 32, 16, 16)),
        ('decode_head.pixel_decoder.input_convs.0', (2, 32, 2, 2)),
    ],
)
def test_pixel_decoder_of_mask2former(ready, tap, shape):
    model = ready(two(mask2former, feature=dict(at=tap, **PROJECTED)))
    assert compared(model, batch(model)) == dict(feature=pair(*shape))


def segformer() -> dict:
    model = of_mmseg('segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512')
    model.backbone.update(
        embed_dims=8, num_heads=[1, 2, 2, 2], num_layers=[1, 1, 1, 1]
    )
    model.backbone.init_cfg = None
    model.decode_head.update(
        in_channels=[8, 16, 16, 16],
        channels=8,
        num_classes=CLASSES,
        norm_cfg=dict(type='BN'),
    )
    return model


def test_segformer_learns_from_fcn(ready):
    """Their class maps differ in size, and one is resized."""
    model = ready(distiller('fcn', CLASS_MAPS, student=segformer()))
    assert compared(model, batch(model)) == dict(maps=pair(2, CLASSES, 4, 4))


def one_channel() -> dict:
    """Two classes and one logit, under a sigmoid."""
    model = segmenter('fcn')
    for head in (model.decode_head, model.auxiliary_head):
        head.update(num_classes=2, out_channels=1, threshold=0.3)
        head.loss_decode.use_sigmoid = True
    return model


@pytest.mark.parametrize('loss', ['KLDivergence', 'DISTLoss', 'DKDLoss'])
def test_one_sigmoid_channel_takes_no_softmax(build, loss):
    entry = dict(at='decode_head.conv_seg', loss=dict(type=loss))
    with pytest.raises(ValueError, match='softmax.*one class|BinaryKLDiverg'):
        build(two(one_channel, maps=entry))


def test_one_sigmoid_channel_learns(ready):
    entry = dict(
        at='decode_head.conv_seg', loss=dict(type='BinaryKLDivergence')
    )
    model = ready(two(one_channel, maps=entry))
    data = batch(model)
    for sample in data['data_samples']:
        sample.gt_sem_seg.data.clamp_(max=1)
    assert compared(model, data) == dict(maps=pair(2, 1, 4, 4))


@pytest.mark.parametrize('loss', ['KLDivergence', 'ChannelWiseDivergence'])
def test_ignored_pixels_count(ready, loss):
    """Distillation asks the teacher, who has an opinion of every pixel."""
    entry = dict(at='decode_head.conv_seg', loss=dict(type=loss))
    model = ready(distiller('fcn', dict(maps=entry)))
    losses = []
    for ignored in (False, True):
        # The same images in both.
        data = batch(model, ignored)
        model.eval()
        losses.append(model(**data, mode='loss'))
    known, unknown = losses
    assert unknown['decode.loss_ce'] == 0 < known['decode.loss_ce']
    assert torch.equal(distillation(known), distillation(unknown))
    assert distillation(known) > 0


def test_other_classes_are_refused(build):
    config = distiller('fcn', CLASS_MAPS)
    config['teacher']['config']['model']['decode_head']['num_classes'] = 7
    with pytest.raises(ValueError, match='has 5 .* has 7.*the same classes'):
        build(config)


def test_one_image_a_step(ready):
    model = ready(distiller('fcn', CLASS_MAPS))
    found = compared(model, batch(model, count=1))
    assert found == dict(maps=pair(1, CLASSES, 4, 4))
