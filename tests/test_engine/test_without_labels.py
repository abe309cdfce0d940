"""Runs with a weight of the task, and without labels."""

import shutil

import pytest
import tiny_detectors
import tiny_recipes
import tiny_segmenters
import torch
from mmengine.hooks import Hook
from tiny_recipes import feature_entry, train, with_distill_lines

from mmdiffkd.utils import read_checkpoint

MSE = dict(neck=dict(type='ProjectionNeck'), loss=dict(type='MSELoss'))
NO_EVALUATION = dict(val_dataloader=None, val_cfg=None, val_evaluator=None)


def classifier(root, model=None, **changes):
    return tiny_recipes.recipe(
        root, model or tiny_recipes.classifier(), epochs=1, **changes
    )


def detector(root, model=None):
    model = model or tiny_detectors.detector('retinanet')
    return tiny_detectors.recipe(root, model, epochs=1)


def segmenter(root, model=None):
    model = model or tiny_segmenters.segmenter('fcn')
    return tiny_segmenters.recipe(root, model, epochs=1)


#: Of each package: the ordinary recipe, the distiller, the folder of images,
#: and a data set over it.
PACKAGES = {
    'mmpretrain': (
        classifier,
        lambda: tiny_recipes.distiller(task_weight=0),
        'data/train/first',
        dict(type='CustomDataset', with_label=False),
    ),
    'mmdet': (
        detector,
        lambda: tiny_detectors.distiller(
            'retinanet', dict(f=dict(at='backbone[-1]', **MSE)), task_weight=0
        ),
        'coco/images',
        dict(type='BaseSegDataset', img_suffix='.png'),
    ),
    'mmseg': (
        segmenter,
        lambda: tiny_segmenters.distiller(
            'fcn', dict(f=dict(at='backbone[-1]', **MSE)), task_weight=0
        ),
        'labelled/images',
        dict(type='BaseSegDataset', img_suffix='.png'),
    ),
}


@pytest.mark.parametrize('package', PACKAGES)
def test_a_folder_of_images_then_an_ordinary_recipe(tmp_path, package):
    recipe, distiller, images, dataset = PACKAGES[package]
    config = with_distill_lines(recipe(tmp_path, distiller()))
    pipeline = [
        step
        for step in config.train_dataloader.dataset.pipeline
        if step.type != 'LoadAnnotations'
    ]
    folder = tmp_path / 'folder'
    shutil.copytree(tmp_path / images, folder)
    prefix = str(folder)
    if package != 'mmpretrain':
        prefix = dict(img_path=prefix)
    config.train_dataloader.dataset = dict(
        data_prefix=prefix, pipeline=pipeline, **dataset
    )
    for key in NO_EVALUATION:
        config[key] = None
    runner = train(config)
    assert runner.iter > 0
    saved = read_checkpoint(tmp_path / 'work/epoch_1.pth')['state_dict']
    stem = next(
        name
        for name, tensor in saved.items()
        if name.startswith('backbone.') and tensor.dim() == 4
    )
    begun = {}

    class Look(Hook):
        def before_train(self, runner):
            begun.update(runner.model.state_dict())
            begun[stem] = begun[stem].clone()

    plain = recipe(tmp_path)
    plain.load_from = str(tmp_path / 'work/epoch_1.pth')
    plain.work_dir = str(tmp_path / 'plain')
    plain.val_dataloader = plain.val_cfg = plain.val_evaluator = None
    tuned = train(plain, Look())
    assert saved.keys() == tuned.model.state_dict().keys()
    assert torch.equal(begun[stem], saved[stem])
    assert not torch.equal(tuned.model.state_dict()[stem], saved[stem])


def recipe(root, hook=None, epochs=2, **changes):
    model = tiny_recipes.distiller(**changes)
    config = tiny_recipes.distill_recipe(
        root, model, epochs=epochs, log_level='INFO'
    )
    config.default_hooks.distill.evaluate_teacher = False
    config.default_hooks.logger.interval = 1
    return config


def logged(root):
    (path,) = (root / 'work').glob('*/*.log')
    return path.read_text()


def test_the_task_ends_by_its_schedule(tmp_path):
    heads = []

    class Watch(Hook):
        def after_train_epoch(self, runner):
            heads.append(runner.model.head.fc.weight.detach().clone())

    train(recipe(tmp_path, task_schedule=dict(stop=1), epochs=3), Watch())
    assert torch.equal(heads[0], heads[1])
    assert torch.equal(heads[1], heads[2])
    log = logged(tmp_path)
    assert log.count("student's own losses are off from here on") == 1
    assert 'What nothing trains now: head.' in log
    assert 'The student is evaluated, because' not in log


def test_the_task_begins_by_its_schedule(tmp_path):
    heads = []

    class Watch(Hook):
        def after_train_epoch(self, runner):
            heads.append(runner.model.head.fc.weight.detach().clone())

    train(recipe(tmp_path, task_schedule=dict(start=2), epochs=3), Watch())
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[1], heads[2])
    log = logged(tmp_path)
    assert log.count("student's own losses are off from here on") == 1
    assert log.count("student's own losses are on from here on") == 1
    assert 'What nothing trains now: head.' in log


def test_a_task_that_begins_later_needs_annotations_at_once(tmp_path):
    config = recipe(tmp_path, task_schedule=dict(start=1))
    config.train_dataloader.dataset.with_label = False
    with pytest.raises(ValueError, match='Set `model.task_weight=0`'):
        train(config)


def test_a_gap_in_which_nothing_is_trained_is_refused(tmp_path):
    entry = feature_entry(schedule=dict(stop=1))
    later = dict(start=2)
    config = recipe(
        tmp_path,
        task_schedule=later,
        distill=dict(feature=entry),
        epochs=3,
    )
    with pytest.raises(ValueError, match='are 0 in epoch 2 .*`start` later'):
        train(config)
    config.model.task_schedule = dict(start=1)
    config.work_dir = str(tmp_path / 'again')
    assert train(config).epoch == 3


@pytest.mark.parametrize('evaluated', [True, False])
def test_an_evaluation_of_what_nothing_trains_is_said(tmp_path, evaluated):
    config = recipe(tmp_path, task_weight=0, epochs=1)
    if not evaluated:
        for key in NO_EVALUATION:
            config[key] = None
    train(config)
    said = '`model.task_weight` is 0. What nothing trains: head. To leave'
    assert (said in logged(tmp_path)) == evaluated
    assert ('accuracy/top1' in logged(tmp_path)) == evaluated


def test_values_of_a_task_that_ended_leave_the_log(tmp_path):
    student = tiny_recipes.classifier()
    student['head']['cal_acc'] = True
    seen = []

    class Watch(Hook):
        priority = 'LOW'

        def after_train_iter(self, runner, *args, **kwargs):
            names = runner.message_hub.log_scalars
            seen.append('train/accuracy_top-1' in names)
            assert 'train/loss' in names

    schedule = dict(stop=3, by_epoch=False)
    train(recipe(tmp_path, student=student, task_schedule=schedule), Watch())
    assert seen == [True, True, True, False]


def test_unlabelled_data_end_the_run_before_its_first_step(tmp_path):
    config = recipe(tmp_path)
    config.train_dataloader.dataset.with_label = False
    begun = []

    class Watch(Hook):
        def after_train_iter(self, runner, *args, **kwargs):
            begun.append(True)

    with pytest.raises(ValueError, match='Set `model.task_weight=0`'):
        train(config, Watch())
    assert not begun


def test_a_run_that_trains_nothing_in_the_end_is_refused(tmp_path):
    entry = feature_entry(schedule=dict(stop=1))
    config = recipe(tmp_path, task_weight=0, distill=dict(feature=entry))
    with pytest.raises(
        ValueError, match=r'are 0 in epoch 2 .*`stop`.* before the end'
    ):
        train(config)
    config.train_cfg.max_epochs = 1
    assert train(config).epoch == 1


def test_epochs_that_never_come_are_refused(tmp_path):
    config = recipe(tmp_path, task_schedule=dict(warmup=2))
    config.train_cfg = dict(by_epoch=False, max_iters=4, val_interval=2)
    config.train_dataloader.sampler.type = 'InfiniteSampler'
    with pytest.raises(
        ValueError, match='`model.task_schedule` counts.*by_epoch=False'
    ):
        train(config)
