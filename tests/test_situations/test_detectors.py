"""Pairs and places of detectors that people bring."""

import pytest
from distill_steps import PROJECTED, compared, pair
from tiny_detectors import batch, detector, distiller, teacher
from tiny_recipes import classifier
from tiny_recipes import teacher as teacher_of

from mmdiffkd.utils import load_config

PYRAMID = dict(pyramid=dict(at='neck[:]', **PROJECTED))
BINARY = dict(loss=dict(type='BinaryKLDivergence'))


def pyramid(*sizes: int) -> list:
    return [level for size in sizes for level in pair(2, 32, size, size)]


def test_headless_classifier_teaches_a_detector(ready):
    backbone = classifier(6)
    del backbone['head'], backbone['neck']
    taps = dict(student_at='backbone[2]', teacher_at='backbone[-1]')
    model = ready(
        distiller(
            'retinanet',
            dict(feature=dict(**taps, **PROJECTED)),
            teacher=teacher_of(model=backbone),
        )
    )
    assert compared(model, batch(model)) == dict(feature=pair(2, 24, 16, 16))


def coco_teacher() -> dict:
    model = detector('retinanet', 6)
    model.bbox_head.num_classes = 80
    return teacher('retinanet', model=model)


def test_coco_teacher_gives_features_to_three_classes(ready):
    model = ready(distiller('retinanet', PYRAMID, teacher=coco_teacher()))
    found = compared(model, batch(model))
    assert found == dict(pyramid=pyramid(8, 4, 2, 1, 1))


def test_coco_teacher_gives_no_logits_to_three_classes(build):
    entry = dict(at='bbox_head.retina_cls', **BINARY)
    config = distiller(
        'retinanet', dict(classes=entry), teacher=coco_teacher()
    )
    with pytest.raises(ValueError, match='27 .* 720.*on the same classes'):
        build(config)


def test_one_image_a_step(ready):
    model = ready(distiller('retinanet', PYRAMID))
    found = compared(model, batch(model, count=1))
    assert found['pyramid'][0] == ((1, 32, 8, 8), (1, 32, 8, 8))


@pytest.mark.parametrize('boxes', [[0, 0], [0, 2]])
def test_images_without_boxes(ready, boxes):
    classes = dict(
        at='roi_head.bbox_head.fc_cls', loss=dict(type='KLDivergence')
    )
    model = ready(distiller('faster', dict(classes=classes, **PYRAMID)))
    found = compared(model, batch(model, boxes))
    assert found['pyramid'] == pyramid(16, 8, 4, 2, 1)
    # A row a sampled box, of three classes and background.
    ((student, teacher),) = found['classes']
    assert student == teacher and student[1] == 4


def test_region_proposals_learn(ready):
    entries = dict(
        objects=dict(at='rpn_head.rpn_cls', **BINARY),
        boxes=dict(at='rpn_head.rpn_reg', loss=dict(type='SmoothL1Loss')),
    )
    model = ready(distiller('faster', entries))
    found = compared(model, batch(model))
    assert len(found['objects']) == len(found['boxes']) == 5


def test_rtmdet_teaches_yolox(ready):
    model = ready(distiller('yolox', PYRAMID, 'rtmdet'))
    assert compared(model, batch(model)) == dict(pyramid=pyramid(8, 4, 2))


@pytest.mark.parametrize(
    'name, head',
    [
        ('yolox', 'bbox_head.multi_level_conv_cls'),
        ('rtmdet', 'bbox_head.rtm_cls'),
    ],
)
def test_classes_of_a_head_for_each_level(ready, name, head):
    entry = dict(at=[f'{head}.{i}' for i in range(3)], **BINARY)
    model = ready(distiller(name, dict(classes=entry)))
    assert compared(model, batch(model)) == dict(
        classes=[*pair(2, 3, 8, 8), *pair(2, 3, 4, 4), *pair(2, 3, 2, 2)]
    )


def centernet() -> dict:
    model = load_config(
        'mmdet::centernet/centernet_r18_8xb16-crop512-140e_coco.py'
    ).model
    model._scope_ = 'mmdet'
    model.backbone.update(base_channels=4, init_cfg=None)
    model.neck.update(
        in_channels=32, num_deconv_filters=(8, 8, 8), use_dcn=False
    )
    model.bbox_head.update(in_channels=8, feat_channels=8, num_classes=3)
    return model


def test_centernet_learns(ready):
    entries = dict(
        pyramid=dict(at='neck[0]', **PROJECTED),
        classes=dict(at='bbox_head.heatmap_head', **BINARY),
    )
    model = ready(
        distiller(
            'retinanet',
            entries,
            student=centernet(),
            teacher=teacher_of(model=centernet(), scope='mmdet'),
        )
    )
    assert compared(model, batch(model)) == dict(
        pyramid=pair(2, 8, 16, 16), classes=pair(2, 3, 16, 16)
    )


def deformable_detr() -> dict:
    """DINO, with a layer of encoder and decoder each."""
    model = load_config('mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py').model
    model._scope_ = 'mmdet'
    model.backbone = {
        **detector('retinanet').backbone,
        'out_indices': (1, 2, 3),
    }
    model.neck.update(in_channels=[8, 16, 32], out_channels=32)
    model.update(num_queries=5)
    wide = dict(embed_dims=32, num_heads=2)
    for part in (model.encoder, model.decoder):
        part.num_layers = 1
        part.layer_cfg.ffn_cfg.update(embed_dims=32, feedforward_channels=32)
    model.encoder.layer_cfg.self_attn_cfg.update(num_points=1, **wide)
    model.decoder.layer_cfg.self_attn_cfg.update(wide)
    model.decoder.layer_cfg.cross_attn_cfg.update(num_points=1, **wide)
    model.positional_encoding.num_feats = 16
    model.bbox_head.update(num_classes=3, embed_dims=32)
    model.dn_cfg.group_cfg.num_dn_queries = 4
    return model


def test_dino_learns_at_its_neck(ready):
    model = ready(
        distiller(
            'retinanet',
            PYRAMID,
            student=deformable_detr(),
            teacher=teacher_of(model=deformable_detr(), scope='mmdet'),
        )
    )
    found = compared(model, batch(model))
    assert found == dict(pyramid=pyramid(8, 4, 2, 1))


def test_detr_is_no_pyramid(ready, build):
    with pytest.raises(ValueError, match='Pick equal numbers with slices'):
        build(distiller('detr', PYRAMID, 'retinanet'))
    entry = dict(student_at='neck[0]', teacher_at='neck[2]', **PROJECTED)
    model = ready(distiller('detr', dict(feature=entry), 'retinanet'))
    assert compared(model, batch(model)) == dict(feature=pair(2, 32, 2, 2))
