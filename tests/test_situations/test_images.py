"""Clips, and inputs that are not one tensor."""

import pytest
import torch
from distill_steps import compared, images, pair
from mmpretrain.models import ImageClassifier
from mmpretrain.registry import MODELS
from tiny_recipes import classifier, distiller, teacher

FEATURE = dict(feature=dict(at='backbone[-1]', loss=dict(type='MSELoss')))


@MODELS.register_module(force=True)
class ClipClassifier(ImageClassifier):
    """Clips (B, T, C, H, W): a mean over the frames' vectors."""

    def extract_feat(self, inputs, stage='neck'):
        features = super().extract_feat(inputs.flatten(0, 1), stage)
        if stage != 'neck':
            return features
        clips = inputs.shape[:2]
        return tuple(x.unflatten(0, clips).mean(1) for x in features)


def test_clips_of_a_classifier_of_images(ready):
    """A map is a frame's, logits are a clip's."""
    student, network = (
        {**classifier(4), 'type': 'ClipClassifier'} for _ in range(2)
    )
    logits = dict(at='head.fc', loss=dict(type='KLDivergence'))
    model = ready(
        distiller(
            student,
            teacher=teacher(model=network),
            distill=dict(logits=logits, **FEATURE),
            input_size=None,
            input_shape=(4, 3, 16, 16),
        )
    )
    data = images()
    data['inputs'] = torch.randn(2, 4, 3, 16, 16)
    assert compared(model, data) == dict(
        feature=pair(8, 16, 4, 4), logits=pair(2, 2)
    )


def test_clips_for_a_teacher_of_images(build):
    config = distiller(
        {**classifier(), 'type': 'ClipClassifier'},
        teacher=teacher(4),
        distill=FEATURE,
        input_size=None,
        input_shape=(4, 3, 16, 16),
    )
    with pytest.raises(ValueError, match='teacher ImageClass.* 4 x 3 x 16 x'):
        build(config)


@MODELS.register_module(force=True)
class TwoBranches(ImageClassifier):
    """Images under a weak and under a strong augmentation."""

    def forward(self, inputs, data_samples=None, mode='tensor'):
        if mode != 'loss':
            return super().forward(inputs, data_samples, mode)
        return {
            f'loss_{branch}': self.loss(x, data_samples)['loss']
            for branch, x in inputs.items()
        }


def test_teacher_sees_every_branch(ready):
    model = ready(
        distiller(
            {**classifier(), 'type': 'TwoBranches'},
            teacher=teacher(4),
            distill=FEATURE,
        )
    )
    data = images()
    strong = torch.randn_like(data['inputs'])
    data['inputs'] = dict(weak=data['inputs'], strong=strong)
    assert compared(model, data) == dict(feature=pair(4, 16, 4, 4))
    # Each image is compared with itself.
    weights = model.student.backbone.state_dict()
    model.teacher.network.backbone.load_state_dict(weights)
    model.eval()
    losses = model(**data, mode='loss')
    found = losses['distill.feature.loss_kd'].item()
    assert found == pytest.approx(0, abs=1e-6)
