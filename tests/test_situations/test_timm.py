"""Networks of timm, as teacher, as student and as backbone."""

import pytest
import tiny_detectors
from distill_steps import PROJECTED, compared, images, pair
from tiny_recipes import classifier, distiller, teacher

pytest.importorskip('timm')


def timm_classifier(**changes) -> dict:
    return dict(
        type='TimmClassifier',
        pretrained=False,
        loss=dict(type='CrossEntropyLoss'),
        data_preprocessor=classifier()['data_preprocessor'],
        **changes,
    )


def swin(**changes) -> dict:
    return timm_classifier(
        model_name='swin_tiny_patch4_window7_224',
        num_classes=2,
        img_size=32,
        window_size=4,
        embed_dim=8,
        depths=(1, 1),
        num_heads=(1, 2),
        **changes,
    )


def test_maps_of_swin_have_channels_last(ready):
    """Here 8 channels on 8 x 8 positions, so that sizes do not tell."""
    entry = dict(
        student_at='backbone[-1]', teacher_at='model.layers.0', **PROJECTED
    )
    model = ready(
        distiller(
            teacher=teacher(model=swin()),
            distill=dict(feature=entry),
            input_size=32,
        )
    )
    (level,) = model.distill.feature.levels
    assert [layout.axes for layout in level.layouts] == ['NCHW', 'NHWC']
    assert compared(model, images(32)) == dict(feature=pair(2, 8, 8, 8))


def test_swin_learns(ready):
    entry = dict(
        student_at='model.layers.0', teacher_at='backbone[-1]', **PROJECTED
    )
    model = ready(
        distiller(swin(), distill=dict(feature=entry), input_size=32)
    )
    assert compared(model, images(32)) == dict(feature=pair(2, 24, 8, 8))


def test_class_and_register_tokens_are_dropped(ready):
    dinov2 = timm_classifier(
        model_name='vit_small_patch14_reg4_dinov2',
        num_classes=0,
        img_size=28,
        patch_size=7,
        embed_dim=16,
        depth=1,
        num_heads=2,
    )
    entry = dict(
        student_at='backbone[-1]', teacher_at='model.norm', **PROJECTED
    )
    model = ready(
        distiller(
            teacher=teacher(model=dinov2),
            distill=dict(feature=entry),
            input_size=28,
        )
    )
    (level,) = model.distill.feature.levels
    assert level.layouts[1].prefix_tokens == 5
    assert compared(model, images(28)) == dict(feature=pair(2, 16, 4, 4))


def test_dinov2_teaches_a_detector(ready):
    """Patches of 14 pixels, of images of any size."""
    dinov2 = timm_classifier(
        model_name='vit_small_patch14_dinov2',
        num_classes=0,
        dynamic_img_size=True,
        dynamic_img_pad=True,
        img_size=56,
        embed_dim=16,
        depth=1,
        num_heads=2,
    )
    entry = dict(
        student_at='backbone[2]', teacher_at='model.norm', **PROJECTED
    )
    config = tiny_detectors.distiller(
        'retinanet',
        dict(feature=entry),
        teacher=teacher(model=dinov2),
    )
    model = ready(config)
    data = tiny_detectors.batch(model, sizes=[(64, 96), (64, 70)])
    assert compared(model, data) == dict(feature=pair(2, 16, 5, 7))


def test_backbone_of_timm_in_a_model_of_mmpretrain(ready):
    student = classifier()
    student['backbone'] = dict(
        type='TIMMBackbone',
        model_name='resnet10t',
        channels=(8, 8, 8, 16),
        stem_width=8,
        features_only=True,
        out_indices=(1, 2),
    )
    student['head']['in_channels'] = 8
    entries = dict(
        feature=dict(at='backbone[-1]', **PROJECTED),
        logits=dict(at='head.fc', loss=dict(type='KLDivergence')),
    )
    model = ready(distiller(student, distill=entries, input_size=32))
    assert compared(model, images(32)) == dict(
        feature=pair(2, 24, 8, 8), logits=pair(2, 2)
    )


def resnet() -> dict:
    return timm_classifier(
        model_name='resnet10t',
        num_classes=2,
        channels=(8, 8, 8, 8),
        stem_width=8,
    )


LOGITS = dict(loss=dict(type='KLDivergence'))


def test_logits_of_a_teacher(ready):
    entry = dict(student_at='head.fc', teacher_at='model.fc', **LOGITS)
    model = ready(
        distiller(
            teacher=teacher(model=resnet()),
            distill=dict(logits=entry),
            input_size=32,
        )
    )
    assert compared(model, images(32)) == dict(logits=pair(2, 2))


def test_student_learns_features_and_logits(ready):
    entries = dict(
        logits=dict(student_at='model.fc', teacher_at='head.fc', **LOGITS),
        feature=dict(
            student_at='model.layer2', teacher_at='backbone[-1]', **PROJECTED
        ),
    )
    model = ready(distiller(resnet(), distill=entries, input_size=32))
    assert compared(model, images(32)) == dict(
        logits=pair(2, 2), feature=pair(2, 24, 8, 8)
    )


def test_paths_begin_with_model(build):
    entry = dict(at='backbone[-1]', **PROJECTED)
    config = distiller(
        teacher=teacher(model=swin()),
        distill=dict(feature=entry),
        input_size=32,
    )
    with pytest.raises(ValueError, match="no module 'backbone'.*model.layers"):
        build(config)
