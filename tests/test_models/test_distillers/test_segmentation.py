"""Segmenters of mmseg under a distiller."""

import pytest
import tiny_recipes
import tiny_segmenters
import torch
from mmseg.structures import SegDataSample
from tiny_detectors import step

MAPS = dict(
    at='decode_head.conv_seg',
    neck=dict(type='DiffKDNeck', num_inference_steps=2),
    loss=dict(type='DISTLoss', loss_weight=1.0),
)
AUXILIARY = {**MAPS, 'at': 'auxiliary_head.conv_seg', 'weight': 0.4}


def make(ready, name='pspnet', teacher=None, **entries):
    return ready(tiny_segmenters.distiller(name, entries, teacher))


def calls_of(module):
    calls = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize(
    'student, teacher',
    [
        ('pspnet', 'pspnet'),
        ('deeplabv3', 'deeplabv3'),
        ('pspnet', 'deeplabv3'),
    ],
)
def test_class_maps_and_those_of_the_auxiliary_head(ready, student, teacher):
    model = make(ready, student, teacher, maps=MAPS, auxiliary=AUXILIARY)
    for name in ('maps', 'auxiliary'):
        ((shape, _),) = model.distill[name].shapes
        assert shape == (2, tiny_segmenters.CLASSES, 16, 16)[:2] + shape[2:]
    logged = step(model, tiny_segmenters.batch(model))
    assert {'decode.loss_ce', 'aux.loss_ce'} <= logged.keys()
    for name in ('maps', 'auxiliary'):
        assert logged[f'distill.{name}.loss_kd'] > 0
        assert logged[f'distill.{name}.loss_diffusion'] > 0
    for head in (model.student.decode_head, model.student.auxiliary_head):
        assert head.conv_seg.weight.grad.any()


@pytest.mark.parametrize('tapped', [False, True])
def test_teachers_auxiliary_head_runs_only_if_it_is_tapped(ready, tapped):
    entries = dict(maps=MAPS, auxiliary=AUXILIARY if tapped else None)
    model = make(ready, **entries)
    calls = calls_of(model.teacher.network.auxiliary_head)
    step(model, tiny_segmenters.batch(model))
    assert len(calls) == tapped


def test_dist_counts_every_pixel(ready):
    entry = dict(at='decode_head.conv_seg', loss=dict(type='DISTLoss'))
    model = make(ready, maps=entry)
    compared = {}

    def spy(module, args):
        compared['pair'] = args

    model.distill.maps.losses[0].register_forward_pre_hook(spy)
    logged = step(model, tiny_segmenters.batch(model))
    student, teacher = (
        x.softmax(1).movedim(1, -1).flatten(0, 2) for x in compared['pair']
    )

    def distance(a, b):
        a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
        return 1 - torch.cosine_similarity(a, b, dim=1).mean()

    expected = distance(student, teacher) + distance(student.T, teacher.T)
    assert len(student) == 2 * compared['pair'][0][0, 0].numel()
    assert logged['distill.maps.loss_kd'].item() == pytest.approx(
        expected.item(), abs=1e-4
    )


@pytest.mark.parametrize(
    'entry',
    [
        dict(at='decode_head.conv_seg', loss=dict(type='KLDivergence')),
        dict(
            at='decode_head.conv_seg', loss=dict(type='ChannelWiseDivergence')
        ),
        dict(
            at='backbone[-1]',
            neck=dict(type='DiffKDNeck', latent_channels=8),
            loss=dict(type='MSELoss'),
        ),
        dict(
            at='decode_head.bottleneck',
            neck=dict(type='DiffKDNeck'),
            loss=dict(type='MSELoss'),
        ),
        dict(
            student_at='backbone[0]',
            teacher_at='backbone[-1]',
            neck=dict(type='ProjectionNeck'),
            loss=dict(type='MSELoss'),
        ),
    ],
)
def test_other_places_and_losses(ready, entry):
    model = make(ready, entry=entry)
    logged = step(model, tiny_segmenters.batch(model))
    assert logged['distill.entry.loss_kd'] > 0


@pytest.mark.parametrize('loss', ['DISTLoss', 'KLDivergence'])
def test_label_maps_that_are_all_ignored(ready, loss):
    model = make(ready, maps={**MAPS, 'loss': dict(type=loss)})
    logged = step(model, tiny_segmenters.batch(model, ignored=True))
    for name, value in logged.items():
        if name.startswith(('distill', 'loss')):
            assert value.isfinite(), name
    for parameter in model.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


def test_last_of_the_heads_that_refine_one_another(ready):
    entry = dict(at='decode_head.1.conv_seg', loss=dict(type='DISTLoss'))
    model = make(ready, 'ocrnet', maps=entry)
    logged = step(model, tiny_segmenters.batch(model))
    assert logged['distill.maps.loss_kd'] > 0
    # The same by hand.
    data = tiny_segmenters.batch(model)
    teacher = model.teacher
    features = teacher.network.extract_feat(data['inputs'])
    first = teacher.network.decode_head[0](features)
    expected = teacher.network.decode_head[1](features, first)
    (found,) = teacher(data['inputs'], ['decode_head.1.conv_seg']).values()
    assert torch.equal(found[0], expected)


def test_teacher_of_another_task(build, ready):
    """It has no such head; its features teach all the same."""
    config = tiny_segmenters.distiller('pspnet', dict(maps=MAPS))
    config['teacher'] = tiny_recipes.teacher()
    with pytest.raises(ValueError, match='teacher ImageClassifier has no'):
        build(config)
    config['distill'] = dict(feature=tiny_recipes.feature_entry())
    model = ready(config)
    logged = step(model, tiny_segmenters.batch(model))
    assert logged['distill.feature.loss_kd'] > 0


def test_augmentation_at_test_time(build):
    """It asks the model for its head's properties."""
    distiller = tiny_segmenters.distiller('pspnet', dict(maps=MAPS))
    tta = build(dict(type='mmseg.SegTTAModel', module=distiller)).eval()
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 64, 64), generator=generator)
    metas = [
        dict(
            img_path='',
            ori_shape=(64, 64),
            img_shape=(64, 64),
            flip=flip,
            flip_direction='horizontal' if flip else None,
        )
        for flip in (False, True)
    ]
    inputs = [[image.byte()], [image.flip(2).byte()]]
    samples = [[SegDataSample(metainfo=meta)] for meta in metas]
    with torch.no_grad():
        (result,) = tta.test_step(dict(inputs=inputs, data_samples=samples))
    student = tta.module.student
    data = student.data_preprocessor(
        dict(inputs=inputs[0], data_samples=samples[0])
    )
    with torch.no_grad():
        plain = student(data['inputs']).softmax(1)
        turned = student(data['inputs'].flip(3)).softmax(1).flip(3)
    expected = torch.nn.functional.interpolate(
        plain + turned, (64, 64), mode='bilinear'
    )
    agree = result.pred_sem_seg.data == expected.argmax(1)
    assert agree.float().mean() > 0.95
