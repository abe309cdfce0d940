"""Networks of mmpretrain that do not hand on a plain map."""

import pytest
from distill_steps import PROJECTED, compared, images, pair
from tiny_recipes import classifier, distiller, teacher, transformer


def project(student_at: str, teacher_at: str) -> dict:
    taps = dict(student_at=student_at, teacher_at=teacher_at)
    return dict(feature=dict(**taps, **PROJECTED))


def wider_transformer(**backbone) -> dict:
    model = transformer()
    model['backbone']['arch'] = dict(
        embed_dims=12, num_layers=1, num_heads=2, feedforward_channels=16
    )
    model['backbone'].update(backbone)
    model['head']['in_channels'] = 12
    return model


def test_class_token_is_dropped(ready):
    model = ready(
        distiller(
            transformer(),
            teacher=teacher(model=wider_transformer()),
            distill=project('backbone.ln1', 'backbone.ln1'),
        )
    )
    assert compared(model, images()) == dict(feature=pair(2, 12, 4, 4))


def test_distillation_token_is_dropped(ready):
    distilled = wider_transformer(type='DistilledVisionTransformer')
    distilled['head']['type'] = 'DeiTClsHead'
    model = ready(
        distiller(
            transformer(),
            teacher=teacher(model=distilled),
            distill=project('backbone.ln1', 'backbone.ln1'),
        )
    )
    (level,) = model.distill.feature.levels
    assert [layout.prefix_tokens for layout in level.layouts] == [1, 2]
    assert compared(model, images()) == dict(feature=pair(2, 12, 4, 4))


def test_distillation_head_learns_from_the_teacher(ready):
    """As in DeiT, whose second token has a head of its own."""
    student = transformer()
    student['backbone']['type'] = 'DistilledVisionTransformer'
    student['head']['type'] = 'DeiTClsHead'
    entry = dict(
        student_at='head.layers.head_dist',
        teacher_at='head.fc',
        loss=dict(type='KLDivergence'),
    )
    model = ready(distiller(student, distill=dict(logits=entry)))
    assert compared(model, images()) == dict(logits=pair(2, 2))


def test_transformer_learns_from_a_convolutional_network(ready):
    model = ready(
        distiller(
            transformer(), distill=project('backbone.ln1', 'backbone[-1]')
        )
    )
    assert compared(model, images()) == dict(feature=pair(2, 24, 4, 4))
    # A larger image has more tokens.
    assert compared(model, images(24)) == dict(feature=pair(2, 24, 6, 6))


@pytest.mark.parametrize(
    'parts, shapes',
    [
        (
            dict(
                neck=dict(type='DiffKDNeck', standardize_teacher=True),
                loss=dict(type='MSELoss'),
            ),
            pair(2, 12, 4, 4),
        ),
        (
            dict(
                neck=dict(type='DiffKDNeck', latent_channels=6),
                loss=dict(type='RADIOLoss'),
            ),
            pair(2, 6, 4, 4),
        ),
        (
            dict(
                neck=dict(type='ProjectionNeck'),
                loss=dict(type='SmoothL1Loss', normalize_teacher=True),
            ),
            pair(2, 12, 4, 4),
        ),
        # The student's map has its own channels, and the teacher's size.
        (
            dict(loss=dict(type='GramLoss')),
            [((2, 16, 4, 4), (2, 12, 4, 4))],
        ),
    ],
    ids=['DiffKD', 'DiffKD with an autoencoder', 'smooth L1', 'Gram'],
)
def test_a_convolutional_network_learns_from_tokens(ready, parts, shapes):
    entry = dict(student_at='backbone[-1]', teacher_at='backbone.ln1', **parts)
    model = ready(
        distiller(
            teacher=teacher(model=wider_transformer()),
            distill=dict(tokens=entry),
        )
    )
    (level,) = model.distill.tokens.levels
    assert level.layouts[1].axes == 'NLC'
    assert level.layouts[1].prefix_tokens == 1
    assert compared(model, images()) == dict(tokens=shapes)
    for part in model.distill.tokens.parts:
        for name, parameter in part.named_parameters():
            assert parameter.grad is not None, name


def test_class_token_alone_is_a_vector(build):
    with pytest.raises(ValueError, match=r'is a vector of shape \(2, 8\)'):
        build(
            distiller(
                transformer(), distill=project('backbone[-1]', 'backbone[-1]')
            )
        )


def test_swin_gives_maps_and_tokens(ready):
    student = classifier()
    student['backbone'] = dict(
        type='SwinTransformer',
        arch=dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 2]),
        img_size=32,
        patch_size=2,
        window_size=4,
        out_indices=(0, 1),
        pad_small_map=True,
    )
    entries = dict(
        maps=dict(at='backbone[-1]', **PROJECTED),
        tokens=dict(
            student_at='backbone.stages.0.blocks.0',
            teacher_at='backbone[0]',
            **PROJECTED,
        ),
    )
    model = ready(distiller(student, distill=entries, input_size=32))
    assert compared(model, images(32)) == dict(
        maps=pair(2, 24, 8, 8), tokens=pair(2, 12, 16, 16)
    )


def convnext() -> dict:
    """What its backbone returns is pooled already."""
    model = classifier()
    arch = dict(depths=[1, 1, 1, 1], channels=[4, 8, 12, 16])
    model['backbone'] = dict(type='ConvNeXt', arch=arch)
    model['neck'] = None
    return model


def test_convnext_is_tapped_at_a_stage(ready):
    model = ready(
        distiller(
            convnext(),
            distill=project('backbone.stages.3', 'backbone[-1]'),
            input_size=32,
        )
    )
    assert compared(model, images(32)) == dict(feature=pair(2, 24, 8, 8))


def test_pooled_output_of_convnext_is_a_vector(ready, build):
    taps = project('backbone[-1]', 'backbone[-1]')
    with pytest.raises(ValueError, match=r'is a vector of shape \(2, 16\)'):
        build(distiller(convnext(), distill=taps, input_size=32))
    taps = project('backbone[-1]', 'neck[-1]')
    model = ready(distiller(convnext(), distill=taps, input_size=32))
    assert compared(model, images(32)) == dict(feature=pair(2, 24))


def test_shape_of_training_follows_the_image(ready):
    """A batch of another size and proportion than the dry run's."""
    model = ready(
        distiller(distill=dict(feature=dict(at='backbone[-1]', **PROJECTED)))
    )
    data = images(40)
    data['inputs'] = data['inputs'][:, :, :16]
    assert compared(model, data) == dict(feature=pair(2, 24, 4, 10))
