import pytest
import tiny_detectors
import tiny_recipes
import tiny_segmenters
import torch
from distill_steps import distillation
from mmengine.optim import build_optim_wrapper
from mmpretrain.structures import DataSample
from no_sync import NoSynchronisation
from tiny_recipes import SIZE, feature_entry
from torch import nn

MSE = dict(neck=dict(type='ProjectionNeck'), loss=dict(type='MSELoss'))
KD = dict(loss=dict(type='KLDivergence'))


def classifiers(student=None, distill=None, **changes):
    distill = distill or dict(feature=feature_entry())
    return tiny_recipes.distiller(student, distill=distill, **changes)


def batch(model, count=4, labels=False):
    samples = [DataSample() for _ in range(count)]
    if labels:
        samples = [each.set_gt_label(0) for each in samples]
    images = list(torch.randint(0, 256, (count, 3, SIZE, SIZE)).byte())
    data = dict(inputs=images, data_samples=samples)
    return model.data_preprocessor(data, True)


def without_labels(data):
    """A batch whose samples have lost all that a pipeline annotates."""
    for sample in data['data_samples']:
        for name in list(sample.keys()):
            delattr(sample, name)
    return data


def test_nothing_runs_behind_the_taps(ready):
    model = ready(classifiers(task_weight=0))
    # Whoever called it would fail.
    model.student.head.forward = model.student.head.loss = None
    losses = model(**batch(model), mode='loss')
    assert losses['loss_task'] == 0
    assert all(k == 'loss_task' or k[:7] == 'distill' for k in losses)
    assert distillation(losses) > 0


def test_inputs_alone_are_enough(ready):
    entries = dict(f=dict(at='backbone[-1]', **MSE))
    model = ready(classifiers(distill=entries, task_weight=0))
    images = torch.randn(2, 3, SIZE, SIZE)
    with NoSynchronisation():
        losses = model(images, mode='loss')
        sum(losses.values()).backward()
    assert distillation(losses) > 0


def test_losses_are_weighted_and_metrics_are_not(ready):
    model = ready(
        tiny_segmenters.distiller(
            'pspnet', dict(logits=dict(at='decode_head.conv_seg', **KD))
        )
    )
    # Dropout would draw anew.
    for module in model.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    data = tiny_segmenters.batch(model)
    with torch.no_grad():
        whole = model(**data, mode='loss')
        model.student_task.weight = 0.25
        part = model(**data, mode='loss')
    assert whole.keys() == part.keys()
    assert whole['decode.loss_ce'] > 0 and 'decode.acc_seg' in whole
    for name, value in whole.items():
        scale = 1.0
        if 'loss' in name and not name.startswith('distill'):
            scale = 0.25
        torch.testing.assert_close(part[name], scale * value)


def test_losses_in_lists_are_weighted(ready):
    model = ready(
        tiny_detectors.distiller(
            'retinanet', dict(f=dict(at='neck[0]', **MSE))
        )
    )
    data = tiny_detectors.batch(model)
    with torch.no_grad():
        whole = model.student(**data, mode='loss')
        model.student_task.weight = 0.5
        part = model(**data, mode='loss')
    assert isinstance(whole['loss_cls'], list)
    for expected, found in zip(whole['loss_cls'], part['loss_cls']):
        torch.testing.assert_close(found, 0.5 * expected)


STUDENTS = {
    'feature': lambda: classifiers(task_weight=0),
    'early stage': lambda: classifiers(
        distill=dict(f=dict(at='backbone[0]', **MSE)), task_weight=0
    ),
    'logits': lambda: classifiers(
        distill=dict(logits=dict(at='head.fc', **KD)), task_weight=0
    ),
    'frozen stages': lambda: classifiers(
        tiny_recipes.classifier(frozen_stages=1), task_weight=0
    ),
    'activation checkpointing': lambda: classifiers(
        tiny_recipes.classifier(with_cp=True), task_weight=0
    ),
    'a detector without pyramid': lambda: tiny_detectors.distiller(
        'retinanet', dict(f=dict(at='backbone[2]', **MSE)), task_weight=0
    ),
    'a level of a pyramid': lambda: tiny_detectors.distiller(
        'faster', dict(f=dict(at='neck[1]', **MSE)), task_weight=0
    ),
    'a head that all levels share': lambda: tiny_detectors.distiller(
        'retinanet',
        dict(f=dict(at='bbox_head.retina_reg', loss=dict(type='MSELoss'))),
        task_weight=0,
    ),
    'a transformer of detection': lambda: tiny_detectors.distiller(
        'detr',
        dict(f=dict(at='bbox_head.fc_cls', layout='NC', **KD)),
        task_weight=0,
    ),
    'a segmenter': lambda: tiny_segmenters.distiller(
        'deeplabv3',
        dict(logits=dict(at='decode_head.conv_seg', **KD)),
        task_weight=0,
    ),
}


@pytest.mark.parametrize('kind', STUDENTS)
def test_untrained_is_what_gets_no_gradient(ready, kind):
    model = ready(STUDENTS[kind]())
    if kind.startswith(('a detector', 'a level', 'a head', 'a transformer')):
        data = without_labels(tiny_detectors.batch(model))
    elif kind == 'a segmenter':
        data = without_labels(tiny_segmenters.batch(model))
    else:
        data = batch(model)
    assert all(p.grad is None for p in model.parameters())
    losses = model(**data, mode='loss')
    distillation(losses).backward()
    untrained = {
        name
        for name, parameter in model.student.named_parameters()
        if parameter.requires_grad and parameter.grad is None
    }
    assert set(model.student_task.untrained(model.distill)) == untrained
    assert ('loss_task' in losses) == bool(untrained)
    # The whole touches every parameter, as DDP wants.
    model.zero_grad()
    total, _ = model.parse_losses(model(**data, mode='loss'))
    total.backward()
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in trainable)


def test_what_is_thawed_later_is_trained(ready):
    model = ready(STUDENTS['frozen stages']())
    parameters = dict(model.student.named_parameters())
    frozen = {n for n, p in parameters.items() if not p.requires_grad}
    assert frozen
    model.student.requires_grad_(True)
    assert not frozen & model.student_task.untrained(model.distill).keys()


def test_the_union_of_active_entries_is_trained(ready):
    entries = dict(
        early=dict(at='backbone.layer1', **MSE),
        late=dict(at='backbone[-1]', **MSE),
    )
    model = ready(classifiers(distill=entries, task_weight=0))

    def untrained():
        names = model.student_task.untrained(model.distill)
        return {name.rsplit('.', 1)[0] for name in names}

    assert untrained() == {'head.fc'}
    model.distill.late.weight = 0
    assert {'head.fc', 'backbone.layer3.0.conv1'} <= untrained()
    assert not any(name.startswith('backbone.layer1') for name in untrained())
    model.student_task.weight = 1
    assert not untrained()


def test_a_network_without_meta_kernels(ready, monkeypatch):
    expected = ready(classifiers(task_weight=0))

    def forward(self, x, *args):
        if x.is_meta:
            raise NotImplementedError
        return plain(self, x, *args)

    kind = type(expected.student.backbone.layer2)
    plain = kind.forward
    monkeypatch.setattr(kind, 'forward', forward)
    model = ready(classifiers(task_weight=0))
    task, other = model.student_task, expected.student_task
    assert task._trained_by == other._trained_by != {}
    assert all(p.grad is None for p in model.parameters())
    means = model.student.backbone.bn1.running_mean
    assert not means.any()


@pytest.mark.parametrize('kind', ['SGD', 'AdamW'])
def test_untrained_parameters_do_not_move(ready, kind):
    settings = dict(type=kind, lr=0.1, weight_decay=0.1)
    if kind == 'SGD':
        settings['momentum'] = 0.9
    stop = dict(stop=1, by_epoch=False)
    model = ready(classifiers(task_schedule=stop))
    wrapper = build_optim_wrapper(
        model,
        dict(
            constructor='mmdiffkd.OptimWrapperConstructor', optimizer=settings
        ),
    )
    head = model.student.head.fc.weight
    stem = model.student.backbone.conv1.weight

    def step(number):
        model.set_progress(0, number)
        before = [p.detach().clone() for p in (head, stem)]
        model.train_step(
            dict(
                inputs=list(torch.randint(0, 256, (4, 3, SIZE, SIZE)).byte()),
                data_samples=[DataSample().set_gt_label(0) for _ in range(4)],
            ),
            wrapper,
        )
        return [
            not torch.equal(p, old) for p, old in zip((head, stem), before)
        ]

    # Momentum has gathered by the time that the task is off.
    assert step(0) == [True, True]
    assert step(1) == [False, True]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(task_weight=-1), '`model.task_weight` is -1.*0 .without labels'),
        (dict(task_weight='no'), '`model.task_weight` is'),
        (dict(task_schedule=3), '`model.task_schedule` is 3'),
        (
            dict(task_schedule=dict(wamup=2)),
            "`model.task_schedule` has an unknown key 'wamup'.*'warmup'",
        ),
        (dict(task_weigth=0), "unknown key 'task_weigth'.*'task_weight'"),
        (
            dict(task_weight=0, distill={}),
            '`model.task_weight` and the weights .* are 0, so that nothing is '
            'trained. Give one of them a weight above 0.',
        ),
        (
            dict(task_weight=0, distill=dict(f=feature_entry(weight=0))),
            'nothing is trained',
        ),
    ],
)
def test_bad_values_are_named(build, changes, message):
    with pytest.raises(ValueError, match=message):
        build(tiny_recipes.distiller(**changes))


@pytest.mark.parametrize(
    ('task', 'key'),
    [
        (dict(task_weight=0), '`model.task_weight` is 0'),
        (
            dict(task_schedule=dict(stop=3)),
            '`model.task_schedule.stop` is 3',
        ),
        (
            dict(task_schedule=dict(start=2)),
            '`model.task_schedule.start` is 2',
        ),
    ],
)
def test_sampled_boxes_need_the_task(build, task, key):
    boxes = dict(at='roi_head.bbox_head.fc_reg', loss=dict(type='MSELoss'))
    with pytest.raises(ValueError, match=f'`distill.b` reads boxes.*{key}'):
        build(tiny_detectors.distiller('faster', dict(b=boxes), **task))


def test_a_schedule_needs_the_hook(ready):
    model = ready(classifiers(task_schedule=dict(warmup=2)))
    with pytest.raises(ValueError, match='`model.task_schedule` is set'):
        model(**batch(model, labels=True), mode='loss')
    model.set_progress(0, 0)
    losses = model(**batch(model, labels=True), mode='loss')
    assert losses['loss'] > 0
    assert model.student_task.scale == 0.5


def test_views_are_refused(ready):
    student = tiny_recipes.self_supervised('SimCLR')
    model = ready(classifiers(student, dict(f=feature_entry()), task_weight=0))
    views = [torch.randn(2, 3, SIZE, SIZE)] * 2
    with pytest.raises(ValueError, match='`model.task_weight` is 0.*a list'):
        model(views, None, mode='loss')
