"""Heads and labels of classifiers that people bring."""

import pytest
import torch
from distill_steps import PROJECTED, compared, images, pair
from mmpretrain.structures import DataSample, MultiTaskDataSample
from tiny_recipes import classifier, distiller, teacher, transformer

FEATURE = dict(feature=dict(at='backbone[-1]', **PROJECTED))
SOFTMAX = dict(loss=dict(type='KLDivergence'))


def two(head, **entries) -> dict:
    """A distiller of two networks with a head of one kind.

    Args:
        head (Callable): Makes the head's config for so many channels.
        **entries: The entries.
    """
    networks = [classifier(base) for base in (4, 6)]
    for network in networks:
        network['head'] = head(network['head']['in_channels'])
    student, network = networks
    return distiller(student, teacher=teacher(model=network), distill=entries)


def several_labels(channels: int) -> dict:
    return dict(
        type='MultiLabelLinearClsHead', num_classes=5, in_channels=channels
    )


def test_several_labels_an_image(ready):
    entry = dict(at='head.fc', loss=dict(type='BinaryKLDivergence'))
    config = two(several_labels, logits=entry, **FEATURE)
    config['student']['data_preprocessor']['num_classes'] = 5
    model = ready(config)
    # The scores are made by the data preprocessor, as in a recipe.
    data = images(labels=([0, 2], []))
    data['inputs'] = list(data['inputs'])
    data = model.data_preprocessor(data, True)
    assert compared(model, data) == dict(
        logits=pair(2, 5), feature=pair(2, 24, 4, 4)
    )


def several_tasks(channels: int) -> dict:
    linear = dict(type='LinearClsHead', loss=dict(type='CrossEntropyLoss'))
    return dict(
        type='MultiTaskHead',
        in_channels=channels,
        task_heads=dict(
            colour=dict(num_classes=2, **linear),
            shape=dict(num_classes=3, **linear),
        ),
    )


def test_several_tasks(ready):
    entries = {
        task: dict(at=f'head.task_heads.{task}.fc', **SOFTMAX)
        for task in ('colour', 'shape')
    }
    model = ready(two(several_tasks, **entries, **FEATURE))
    samples = []
    for label in (0, 1):
        sample = MultiTaskDataSample()
        sample.set_field(DataSample().set_gt_label(label), 'colour')
        sample.set_field(DataSample().set_gt_label(2 - label), 'shape')
        samples.append(sample)
    data = dict(inputs=torch.randn(2, 3, 16, 16), data_samples=samples)
    assert compared(model, data) == dict(
        colour=pair(2, 2), shape=pair(2, 3), feature=pair(2, 24, 4, 4)
    )


def one_logit(channels: int) -> dict:
    return dict(
        type='LinearClsHead',
        num_classes=1,
        in_channels=channels,
        loss=dict(type='CrossEntropyLoss', use_sigmoid=True),
    )


@pytest.mark.parametrize('loss', ['KLDivergence', 'DKDLoss', 'DISTLoss'])
def test_one_sigmoid_logit_takes_no_softmax(build, loss):
    entry = dict(at='head.fc', loss=dict(type=loss))
    with pytest.raises(ValueError, match='BinaryKLDivergence'):
        build(two(one_logit, logits=entry))


def mixed(entry: dict) -> dict:
    student = classifier()
    student['train_cfg'] = dict(augments=dict(type='Mixup', alpha=1.0))
    return distiller(student, distill=dict(logits=entry))


def mixed_batch(model) -> dict:
    data = images()
    data['inputs'] = list(data['inputs'])
    return model.data_preprocessor(data, True)


def test_mixed_images_go_to_both_networks(ready):
    model = ready(mixed(dict(at='head.fc', **SOFTMAX)))
    seen = []
    for network in (model.student, model.teacher.network):
        network.backbone.register_forward_pre_hook(
            lambda module, args: seen.append(args[0])
        )
    assert compared(model, mixed_batch(model)) == dict(logits=pair(2, 2))
    student, taught = seen
    assert torch.equal(student, taught)


def test_mixed_labels_are_no_single_labels(ready):
    entry = dict(at='head.fc', loss=dict(type='DKDLoss'))
    model = ready(mixed(entry))
    with pytest.raises(ValueError, match='labels are mixed .*train_cfg.augme'):
        model(**mixed_batch(model), mode='loss')


def test_a_teacher_of_more_classes_gives_no_logits(build):
    network = classifier(6)
    network['head']['num_classes'] = 10
    config = distiller(
        teacher=teacher(model=network),
        distill=dict(logits=dict(at='head.fc', **SOFTMAX)),
    )
    with pytest.raises(ValueError, match='has 2 .* has 10.*the same classes'):
        build(config)
    build({**config, 'distill': FEATURE})


def test_equal_networks_need_no_neck(ready):
    """A student of the same architecture, as in self-distillation."""
    entry = dict(at='backbone[-1]', loss=dict(type='MSELoss'))
    config = distiller(teacher=teacher(4), distill=dict(feature=entry))
    found = compared(ready(config), images())
    assert found == dict(feature=pair(2, 16, 4, 4))


def test_adapters_learn(ready):
    """LoRA, whose checkpoints hold the adapters and the head alone."""
    student = transformer()
    student['backbone'] = dict(
        type='LoRAModel',
        module=student['backbone'],
        alpha=4,
        rank=2,
        targets=[dict(type='qkv')],
    )
    entry = dict(
        student_at='backbone.module.ln1',
        teacher_at='backbone[-1]',
        **PROJECTED,
    )
    model = ready(distiller(student, distill=dict(feature=entry)))
    assert compared(model, images()) == dict(feature=pair(2, 24, 4, 4))
    names = [n for n in model.state_dict() if not n.startswith('distill.')]
    assert names == list(model.student.state_dict())
    assert all('.lora_' in n or n.startswith('head.') for n in names)


def test_frozen_stages_cannot_learn(ready):
    model = ready(distiller(classifier(frozen_stages=3), distill=FEATURE))
    with pytest.raises(ValueError, match='no gradient.*behind the frozen'):
        model(**images(), mode='loss')


def test_one_image_a_step(ready):
    entries = dict(logits=dict(at='head.fc', **SOFTMAX), **FEATURE)
    model = ready(distiller(distill=entries))
    assert compared(model, images(count=1)) == dict(
        logits=pair(1, 2), feature=pair(1, 24, 4, 4)
    )
