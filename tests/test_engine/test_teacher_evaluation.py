import json
import logging
import os
import re
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import tiny_detectors
import tiny_recipes
import tiny_segmenters
import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS, MODELS, DefaultScope
from tiny_recipes import make_runner

from mmdiffkd.engine.teacher_evaluation import count_classes
from mmdiffkd.models.distillers.context import task_of
from mmdiffkd.models.distillers.teacher import build_from_config
from mmdiffkd.utils import load_config

TESTS = Path(__file__).parents[1]
FIGURES = 'Teacher on the validation data: '
#: DiffKD is not what is tested here.
PROJECTED = dict(
    at='backbone[-1]',
    neck=dict(type='ProjectionNeck'),
    loss=dict(type='MSELoss'),
)


@pytest.fixture
def saved(tmp_path):
    """A teacher with random weights in a file, as a distiller takes it."""

    def function(model, scope='mmpretrain', classes=None):
        with DefaultScope.overwrite_default_scope(scope):
            network = MODELS.build(deepcopy(model))
        head = getattr(network, 'head', None)
        if head is not None:
            # It always says the first class.
            head.fc.weight.data.zero_()
            head.fc.bias.data.copy_(torch.tensor([1.0, 0.0]))
        content = dict(state_dict=network.state_dict())
        if classes is not None:
            content['meta'] = dict(dataset_meta=dict(classes=classes))
        path = str(tmp_path / 'teacher.pth')
        torch.save(content, path)
        return tiny_recipes.teacher(model=model, scope=scope, checkpoint=path)

    return function


def recipe(tmp_path, teacher, entry=None, hook=None, metric=None):
    """A classifier's recipe of an epoch."""
    entry = entry or tiny_recipes.feature_entry()
    model = tiny_recipes.distiller(
        teacher=teacher, distill=dict(feature=entry)
    )
    config = tiny_recipes.distill_recipe(tmp_path, model, epochs=1, images=4)
    if metric is not None:
        config.val_evaluator = dict(type=f'mmengine.{metric}')
    config.default_hooks.distill.update(hook or {})
    return config


class Lines(logging.Handler):
    """What the log says of the teacher's evaluation, with the level."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        message = record.getMessage()
        if FIGURES in message or re.match(
            'The (teacher .* evaluated|evaluation)', message
        ):
            self.lines.append(f'{record.levelname} - {message}')


def train(config):
    """Train a recipe; gives the runner and the lines of the log."""
    runner = make_runner(config)
    handler = Lines()
    runner.logger.addHandler(handler)
    runner.logger.setLevel('INFO')
    runner.train()
    return runner, handler.lines


def scalars(tmp_path):
    (path,) = (tmp_path / 'work').glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [row for row in rows if any('teacher/' in key for key in row)]


@pytest.mark.parametrize(
    'classes',
    [None, ['First', 'second '], 'a file of names'],
    ids=['unknown', 'the same', 'no list'],
)
def test_figures_are_logged(tmp_path, saved, classes, slow_items, capsys):
    teacher = saved(tiny_recipes.classifier(6), classes=classes)
    _, lines = train(recipe(tmp_path, teacher))
    said = capsys.readouterr().err
    assert 'Evaluation of the teacher: 1 of ' in said
    # The first class is half of the images.
    assert lines == [f'INFO - {FIGURES}accuracy/top1: 50.0000']
    (row,) = scalars(tmp_path)
    assert row['teacher/accuracy/top1'] == 50


def test_the_size_of_the_images_is_that_of_the_data(tmp_path, saved):
    teacher = saved(tiny_recipes.classifier(6))
    _, lines = train(recipe(tmp_path, dict(teacher, input_size=24)))
    first, second = lines
    assert 'not of its `input_size` (24, 24)' in first
    assert second == f'INFO - {FIGURES}accuracy/top1: 50.0000'


def test_a_network_of_another_library_is_not_evaluated(tmp_path):
    teacher = dict(
        module='torchvision.models.resnet18',
        kwargs=dict(num_classes=2),
        checkpoint=None,
    )
    entry = dict(
        PROJECTED, at=None, student_at='backbone[-1]', teacher_at='layer1'
    )
    _, (line,) = train(recipe(tmp_path, teacher, entry))
    assert line.endswith(
        'it is no model of an OpenMMLab package, which evaluators read.'
    )


def test_random_teacher_is_not_evaluated(tmp_path):
    _, lines = train(recipe(tmp_path, tiny_recipes.teacher(6)))
    assert not lines and not scalars(tmp_path)


def test_evaluation_can_be_switched_off(tmp_path, saved):
    teacher = saved(tiny_recipes.classifier(6))
    _, lines = train(
        recipe(tmp_path, teacher, hook=dict(evaluate_teacher=False))
    )
    assert not lines and not scalars(tmp_path)


@pytest.mark.parametrize(
    'classes, reason',
    [
        (
            ['second', 'first'],
            "its classes have other names. Class 0 is 'second' in its "
            "checkpoint and 'first' in the data. A loss over classes needs "
            'the same classes in the same order.',
        ),
        (
            ['first', 'second', 'third'],
            'its checkpoint names 3 classes, the data have 2.',
        ),
    ],
    ids=['another order', 'another number'],
)
def test_teacher_of_other_names(tmp_path, saved, classes, reason):
    teacher = saved(tiny_recipes.classifier(6), classes=classes)
    _, lines = train(recipe(tmp_path, teacher))
    line = f'INFO - The teacher ImageClassifier is not evaluated: {reason}'
    assert lines == [line]
    assert not scalars(tmp_path)


def test_segmentor_teaches_a_classifier(tmp_path, saved):
    teacher = saved(tiny_segmenters.segmenter('fcn', 6), 'mmseg')
    _, lines = train(recipe(tmp_path, teacher, PROJECTED))
    assert lines == [
        'INFO - The teacher EncoderDecoder is not evaluated: it is a model '
        'for segmentation, the student ImageClassifier is one for '
        'classification.'
    ]


def headless():
    model = tiny_recipes.classifier(6)
    del model['head']
    return model


def detector(classes):
    model = tiny_detectors.detector('retinanet', 6)
    model.bbox_head.num_classes = classes
    # Of hundreds of boxes, with 80 classes most are of none of the data's.
    model.test_cfg.score_thr = 0.0
    return model


@pytest.mark.parametrize(
    'model, scope, line',
    [
        (
            detector(3),
            'mmdet',
            f'{FIGURES}coco/bbox_mAP: 0',
        ),
        (
            detector(80),
            'mmdet',
            'The teacher RetinaNet is not evaluated: it has 80 classes, the '
            'student RetinaNet has 3.',
        ),
        (
            headless(),
            'mmpretrain',
            'The teacher ImageClassifier is not evaluated: it has no head '
            'that predicts.',
        ),
    ],
    ids=['the same classes', '80 classes', 'no head'],
)
def test_teacher_of_a_detector(tmp_path, saved, model, scope, line):
    entry = dict(PROJECTED, student_at='backbone[1]', teacher_at='backbone[0]')
    del entry['at']
    names = tiny_detectors.NAMES if scope == 'mmdet' else None
    teacher = saved(model, scope, names)
    distiller = tiny_detectors.distiller(
        'retinanet', dict(feature=entry), teacher=teacher
    )
    config = tiny_detectors.recipe(tmp_path, distiller, epochs=1)
    _, (found,) = train(tiny_recipes.with_distill_lines(config))
    assert found.startswith(f'INFO - {line}')


class FailingMetric(BaseMetric):
    """Fails with its first user, which is the teacher, then no more."""

    error, where, failed = KeyError, 'process', False

    def process(self, data_batch, data_samples):
        self.results += data_samples
        np.random.rand()
        self.fail('process')

    def compute_metrics(self, results):
        self.fail('compute_metrics')
        return dict(images=len(results))

    def fail(self, where):
        if where == self.where and not FailingMetric.failed:
            FailingMetric.failed = True
            raise self.error('cat')


@pytest.fixture
def failing(monkeypatch):
    METRICS.register_module(module=FailingMetric, force=True)
    monkeypatch.setattr(FailingMetric, 'failed', False)
    return FailingMetric


@pytest.mark.parametrize('where', ['process', 'compute_metrics'])
def test_training_goes_on_after_a_failure(
    tmp_path, saved, failing, monkeypatch, where
):
    monkeypatch.setattr(failing, 'where', where)
    teacher = saved(tiny_recipes.classifier(6))
    runner, lines = train(recipe(tmp_path, teacher, metric='FailingMetric'))
    assert lines == [
        "WARNING - The evaluation of the teacher failed: KeyError: 'cat'. "
        "Training goes on without the teacher's figures."
    ]
    assert not scalars(tmp_path)
    assert failing.failed
    # The student is evaluated, and learns what it learns without this.
    assert runner.message_hub.get_scalar('val/images').current() == 4
    quiet = recipe(
        tmp_path, teacher, None, dict(evaluate_teacher=False), 'FailingMetric'
    )
    quiet.work_dir = str(tmp_path / 'quiet')
    weights = train(quiet)[0].model.state_dict()
    for name, value in runner.model.state_dict().items():
        assert torch.equal(weights[name], value), name


def test_an_interrupt_ends_the_run(tmp_path, saved, failing, monkeypatch):
    monkeypatch.setattr(failing, 'error', KeyboardInterrupt)
    config = recipe(
        tmp_path,
        saved(tiny_recipes.classifier(6)),
        metric='FailingMetric',
    )
    with pytest.raises(KeyboardInterrupt):
        train(config)


@METRICS.register_module(force=True)
class MixedMetric(BaseMetric):
    """Gives what evaluators give beside plain numbers, or nothing."""

    empty = False

    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        if self.empty:
            return {}
        return dict(
            mean=torch.tensor(0.5), by_class=[0.25, 0.75], count=len(results)
        )


@pytest.mark.parametrize(
    'empty, line',
    [
        (False, 'mean: 0.5000, by_class: [0.25, 0.75], count: 4.0000'),
        (True, 'the evaluator gives no figures'),
    ],
)
def test_figures_that_are_no_numbers(
    tmp_path, saved, monkeypatch, empty, line
):
    monkeypatch.setattr(MixedMetric, 'empty', empty)
    config = recipe(
        tmp_path,
        saved(tiny_recipes.classifier(6)),
        metric='MixedMetric',
    )
    config.train_cfg.val_interval = 2
    _, lines = train(config)
    assert lines == [f'INFO - {FIGURES}{line}']
    expected = {'teacher/mean': 0.5, 'teacher/count': 4, 'step': 0}
    assert scalars(tmp_path) == ([] if empty else [expected])


PROCESS = """
import sys
from pathlib import Path

import tiny_recipes
import torch.distributed as dist
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

folder, rank = Path(sys.argv[1]), int(sys.argv[2])
dist.init_process_group(
    'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
)


@METRICS.register_module()
class FailingOnce(BaseMetric):
    fails = True

    def __init__(self, where):
        super().__init__()
        self.where = where

    def process(self, data_batch, data_samples):
        self.results += data_samples
        self.fail('process', 1)

    def compute_metrics(self, results):
        self.fail('compute_metrics', 0)
        return dict(images=len(results))

    def fail(self, where, rank):
        if FailingOnce.fails and where == self.where and get_rank() == rank:
            FailingOnce.fails = False
            raise ValueError(f'cat in {where}')


for where in ('process', 'compute_metrics', 'nowhere'):
    FailingOnce.fails = True
    config = Config.fromfile(folder / 'config.py')
    config.val_evaluator = dict(type='FailingOnce', where=where)
    config.work_dir = str(folder / where)
    runner = tiny_recipes.make_runner(config)
    runner.logger.setLevel('INFO')
    for handler in runner.logger.handlers:
        handler.setLevel('INFO')
    runner.train()
    assert runner.message_hub.get_scalar('val/images').current() == 4
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_processes_agree(tmp_path, saved):
    """An error of one process, in what it does alone and while others wait."""
    config = recipe(tmp_path, saved(tiny_recipes.classifier(6)))
    # Two images a process.
    config.train_dataloader.batch_size = 2
    config.dump(tmp_path / 'config.py')
    processes = [
        subprocess.Popen(
            [sys.executable, '-c', PROCESS, tmp_path, str(rank)],
            env={**os.environ, 'PYTHONPATH': str(TESTS)},
        )
        for rank in range(2)
    ]
    try:
        assert [p.wait(timeout=120) for p in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    for where, line in (
        ('process', 'failed: ValueError: cat in process. Training goes on'),
        ('compute_metrics', 'failed: ValueError: cat in compute_metrics.'),
        ('nowhere', f'{FIGURES}images: 4.0000'),
    ):
        (log,) = (tmp_path / where).glob('*/*.log')
        assert log.read_text().count(line) == 1
        assert (tmp_path / where / 'epoch_1.pth').exists()


@pytest.mark.parametrize(
    'model, count',
    [
        *(
            (tiny_detectors.detector(name), tiny_detectors.CLASSES)
            for name in tiny_detectors.FILES
        ),
        *(
            (tiny_segmenters.segmenter(name), tiny_segmenters.CLASSES)
            for name in tiny_segmenters.FILES
        ),
        (tiny_recipes.classifier(), 2),
        (headless(), None),
    ],
)
def test_classes_are_counted(model, count):
    assert count_classes(MODELS.build(model)) == count


@pytest.mark.parametrize(
    'name, task, count',
    [
        ('mmdet::rpn/rpn_r50_fpn_1x_coco', 'detection', 1),
        ('mmdet::solo/solo_r50_fpn_1x_coco', 'detection', 80),
        ('mmdet::panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco', 'detection', 133),
        (
            'mmdet::maskformer/maskformer_r50_ms-16xb1-75e_coco',
            'detection',
            133,
        ),
        ('mmpretrain::vgg/vgg11_8xb32_in1k', 'classification', 1000),
        (
            'mmpretrain::simsiam/simsiam_resnet50_8xb32-coslr-100e_in1k',
            'self-supervised learning',
            None,
        ),
        (
            'mmpretrain::arcface/resnet50-arcface_8xb32_inshop',
            'retrieval',
            3997,
        ),
    ],
)
def test_models_of_the_packages(name, task, count):
    network = build_from_config(load_config(f'{name}.py'))
    assert (task_of(network), count_classes(network)) == (task, count)


def test_models_of_timm():
    pytest.importorskip('timm')
    model = dict(type='mmpretrain.TimmClassifier', model_name='resnet18')
    for count in (7, 0):
        network = MODELS.build(dict(model, num_classes=count))
        assert task_of(network) == 'classification'
        assert count_classes(network) == count


def test_a_model_of_no_package():
    assert task_of(torch.nn.Linear(2, 3)) is None
    assert count_classes(torch.nn.Linear(2, 3)) is None


LOGITS = dict(at='head.fc', loss=dict(type='KLDivergence'))
BY_THE_TEACHER = dict(
    at='backbone[-1]',
    teacher_head='head.fc',
    neck=dict(type='DiffKDClassifierNeck'),
    loss=dict(type='KLDivergence'),
)


@pytest.mark.parametrize(
    'entry',
    [
        LOGITS,
        dict(at='head.fc', loss=dict(type='MSELoss')),
        dict(
            at='backbone[-1]',
            teacher_head='head.fc',
            neck=dict(type='DSKDNeck'),
            loss=dict(type='MSELoss'),
        ),
    ],
    ids=['distributions', 'values', 'labels'],
)
def test_logits_need_the_order_of_the_classes(tmp_path, saved, entry):
    model = tiny_recipes.classifier(6)
    teacher = saved(model, classes=['second', 'first'])
    config = recipe(tmp_path, teacher, entry)
    with pytest.raises(ValueError, match="`distill.feature`: .*'second' in"):
        train(config)
    # An entry that is off compares no classes.
    train(recipe(tmp_path, teacher, {**entry, 'weight': 0}))


@pytest.mark.parametrize(
    'entry', [None, BY_THE_TEACHER], ids=['features', 'by the teacher']
)
def test_other_entries_need_no_order_of_the_classes(tmp_path, saved, entry):
    """The teacher's head takes both features in its own order."""
    model = tiny_recipes.classifier(6)
    teacher = saved(model, classes=['second', 'first'])
    train(recipe(tmp_path, teacher, entry))


def test_sides_of_boxes_have_no_classes(tmp_path):
    teacher = tiny_detectors.detector('gfl', 6)
    with DefaultScope.overwrite_default_scope('mmdet'):
        weights = MODELS.build(deepcopy(teacher)).state_dict()
    names = dict(dataset_meta=dict(classes=('second', 'first', 'third')))
    path = str(tmp_path / 'teacher.pth')
    torch.save(dict(state_dict=weights, meta=names), path)
    sides = dict(
        at=[f'bbox_head.scales.{i}' for i in range(5)],
        loss=dict(type='KLDivergence', groups=4),
    )
    model = tiny_detectors.distiller('gfl', dict(sides=sides))
    model['teacher']['checkpoint'] = path
    config = tiny_detectors.recipe(tmp_path, model, epochs=1)
    config.merge_from_dict(deepcopy(tiny_recipes.DISTILL_LINES))
    _, lines = train(config)
    assert len(lines) == 1


def test_other_names_are_said_of_logits(tmp_path, saved):
    teacher = saved(tiny_recipes.classifier(6), classes=['cat', 'dog'])
    config = recipe(tmp_path, teacher, LOGITS)
    config.default_hooks.distill.evaluate_teacher = False
    runner = make_runner(config)
    messages = []
    runner.logger.addFilter(lambda r: messages.append(r.getMessage()) or True)
    runner.train()
    (found,) = (m for m in messages if m.startswith('`distill.feature`: cla'))
    assert "Class 0 is 'cat' in its checkpoint and 'first' in" in found


def test_names_may_be_spelled_otherwise(tmp_path, saved):
    teacher = saved(tiny_recipes.classifier(6), classes=['1st', '2nd'])
    _, (remark, figures) = train(recipe(tmp_path, teacher))
    assert 'evaluated, although its classes have other names' in remark
    assert "Class 0 is '1st'" in remark
    assert figures == f'INFO - {FIGURES}accuracy/top1: 50.0000'
