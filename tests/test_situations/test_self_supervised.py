"""Networks that learn without labels, as teachers and as students."""

import pytest
from distill_steps import PROJECTED, compared, images, pair
from tiny_recipes import (
    distiller,
    self_supervised,
    teacher,
    transformer,
)

FEATURE = dict(feature=dict(at='backbone[-1]', **PROJECTED))


def masked_autoencoder() -> dict:
    model = self_supervised('MAE')
    model['backbone'] = {**transformer()['backbone'], 'type': 'MAEViT'}
    model['neck'] = dict(
        type='MAEPretrainDecoder',
        num_patches=16,
        patch_size=4,
        embed_dim=8,
        decoder_embed_dim=8,
        decoder_depth=1,
        decoder_num_heads=2,
    )
    model['head'] = dict(
        type='MAEPretrainHead',
        patch_size=4,
        loss=dict(type='PixelReconstructionLoss', criterion='L2'),
    )
    return model


@pytest.mark.parametrize('kind', ['SimCLR', 'MoCo', 'BYOL', 'SimSiam'])
def test_backbone_teaches_a_classifier(ready, kind):
    model = ready(
        distiller(
            teacher=teacher(model=self_supervised(kind)), distill=FEATURE
        )
    )
    assert compared(model, images()) == dict(feature=pair(2, 16, 4, 4))


def test_masked_autoencoder_teaches_with_all_tokens(ready):
    entry = dict(
        student_at='backbone[-1]', teacher_at='backbone.ln1', **PROJECTED
    )
    model = ready(
        distiller(
            teacher=teacher(model=masked_autoencoder()),
            distill=dict(feature=entry),
        )
    )
    assert compared(model, images()) == dict(feature=pair(2, 8, 4, 4))


def test_masked_tokens_of_a_student_are_no_map(ready):
    entry = dict(
        student_at='backbone.ln1', teacher_at='backbone[-1]', **PROJECTED
    )
    model = ready(distiller(masked_autoencoder(), distill=dict(feature=entry)))
    with pytest.raises(ValueError, match='some are masked or dropped'):
        model(**images(), mode='loss')
