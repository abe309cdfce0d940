import json
import shutil

import mmcv
import numpy as np
import pytest
import tiny_recipes
import torch
from mmengine.hooks import Hook
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import DATASETS, OPTIM_WRAPPER_CONSTRUCTORS
from mmpretrain.datasets.transforms import PackInputs
from mmpretrain.structures import DataSample
from tiny_recipes import feature_entry, make_runner, train
from torch import nn

from mmdiffkd.engine import DistillHook, distill_hook
from mmdiffkd.registry import MODELS


def recipe(tmp_path, hook=None, student=None, teacher=None, **changes):
    """One entry of ``changes`` is the distiller's, the others a recipe's."""
    parts = dict(teacher=teacher or tiny_recipes.teacher())
    if 'distill' in changes:
        parts['distill'] = changes.pop('distill')
    model = tiny_recipes.distiller(student, **parts)
    config = tiny_recipes.distill_recipe(tmp_path, model, **changes)
    config.default_hooks.distill.update(hook or {})
    return config


def scalars(tmp_path):
    (path,) = (tmp_path / 'work').glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize('interval', [2, 50])
def test_losses_and_gamma_are_logged(tmp_path, interval):
    config = recipe(tmp_path)
    config.default_hooks.logger.interval = interval
    train(config)
    rows = [row for row in scalars(tmp_path) if 'lr' in row]
    assert len(rows) == 2
    assert len({row['distill.feature.gamma'] for row in rows}) == 2
    for row in rows:
        assert 0 < row['distill.feature.gamma'] < 1
        assert row['distill.feature.gamma_std'] >= 0
        for part in ('kd', 'diffusion', 'autoencoder'):
            assert row[f'distill.feature.loss_{part}'] > 0
        assert row['loss'] > 0


def test_metrics_are_averaged_between_two_lines(tmp_path):
    seen = []

    class Watch(Hook):
        priority = 'LOW'

        def after_train_iter(self, runner, *args, **kwargs):
            seen.append(runner.model.metrics['distill.feature.gamma'].item())

    train(recipe(tmp_path, epochs=1), Watch())
    (row,) = (row for row in scalars(tmp_path) if 'lr' in row)
    assert row['distill.feature.gamma'] == pytest.approx(sum(seen) / 2)


def test_schedule_stops_distillation_and_freezes_the_necks(tmp_path):
    weights = []

    class Watch(Hook):
        def after_train_epoch(self, runner):
            model = runner.model
            weights.append(
                [p.detach().clone() for p in model.distill.parameters()]
            )
            factors.append(model.distill['feature'].factor)

    factors = []
    entry = feature_entry(schedule=dict(warmup=2, stop=2))
    config = recipe(tmp_path, epochs=3, distill=dict(feature=entry))
    train(config, Watch())
    assert factors == [0.5, 1.0, 0.0]
    moved = [
        not all(map(torch.equal, before, after))
        for before, after in zip(weights, weights[1:])
    ]
    assert moved == [True, False]
    rows = [r for r in scalars(tmp_path) if 'lr' in r]
    assert rows[-1]['distill.feature.loss_kd'] >= 0


def test_panels_are_drawn_at_their_interval(tmp_path):
    pytest.importorskip('tensorboard')
    config = recipe(tmp_path, dict(panel_interval=2, panel_images=2))
    backends = config.visualizer.vis_backends
    backends.append(dict(type='TensorboardVisBackend'))
    train(config)
    (events,) = (tmp_path / 'work').glob('*/vis_data/events.out.*')
    assert b'distill.feature' in events.read_bytes()
    (folder,) = (tmp_path / 'work').glob('*/vis_data/vis_image')
    assert [p.name for p in folder.iterdir()] == ['distill.feature_2.png']


@pytest.mark.parametrize('from_file', [True, False])
def test_panels_show_the_colours_of_the_data_set(tmp_path, from_file):
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    results = {'img': red, 'sample_idx': 0}  # as CIFAR comes
    if from_file:
        path = str(tmp_path / 'red.png')
        mmcv.imwrite(red[..., ::-1], path)
        results = mmcv.LoadImageFromFile()({'img_path': path})
    picture = distill_hook._picture(PackInputs()(results))
    np.testing.assert_array_equal(picture, red)


@pytest.mark.parametrize('channels', [1, 2, 4, 7])
@pytest.mark.parametrize('dtype', [torch.uint8, torch.float32, torch.int16])
@pytest.mark.parametrize('frames', [(), (5,)])
def test_any_images_make_a_picture(channels, dtype, frames):
    values = torch.arange(8 * 6).view(8, 6).to(dtype)
    inputs = values.expand(*frames, channels, 8, 6)
    sample = dict(inputs=inputs, data_samples=DataSample())
    picture = distill_hook._picture(sample)
    assert (picture.dtype, picture.shape) == (np.uint8, (8, 6, 3))
    assert (np.diff(picture[..., 0].flatten()) > 0).all()


def lone_last_image(tmp_path):
    entries = dict(logits=tiny_recipes.logits_entry())
    return recipe(tmp_path, images=10, batch_size=3, epochs=1, distill=entries)


def test_lone_last_image_is_found_before_training(tmp_path):
    config = lone_last_image(tmp_path)
    runner = make_runner(config)
    with pytest.raises(ValueError, match=r'10 images has 1.*drop_last=True'):
        runner.train()
    assert runner.iter == 0


def test_drop_last_cures_it(tmp_path):
    config = lone_last_image(tmp_path)
    config.train_dataloader.drop_last = True
    assert train(config).iter == 3


@pytest.mark.parametrize(
    'arguments', [dict(panel_interval=-1), dict(panel_images=0)]
)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        DistillHook(**arguments)


def test_other_constructor_is_refused(tmp_path):
    @OPTIM_WRAPPER_CONSTRUCTORS.register_module(force=True)
    class OwnConstructor(DefaultOptimWrapperConstructor):
        pass

    config = recipe(tmp_path)
    config.optim_wrapper.constructor = 'OwnConstructor'
    with pytest.raises(ValueError, match='student_constructor.*OwnConstr'):
        train(config)


def test_hook_on_a_plain_model_is_refused(tmp_path):
    config = tiny_recipes.recipe(tmp_path, tiny_recipes.classifier())
    config.default_hooks.distill = dict(type='mmdiffkd.DistillHook')
    with pytest.raises(TypeError, match='Remove `default_hooks.distill`'):
        train(config)


def test_default_constructor_works_too(tmp_path):
    config = recipe(tmp_path, epochs=1)
    config.optim_wrapper.pop('constructor')
    runner = train(config)
    ids = {
        id(p)
        for group in runner.optim_wrapper.optimizer.param_groups
        for p in group['params']
    }
    assert ids == {id(p) for p in runner.model.parameters()}


def test_iteration_based_loop(tmp_path):
    entry = feature_entry(schedule=dict(warmup=2, by_epoch=False))
    config = recipe(
        tmp_path, dict(panel_interval=2), distill=dict(feature=entry)
    )
    config.train_cfg = dict(by_epoch=False, max_iters=4, val_interval=2)
    config.train_dataloader.sampler.type = 'InfiniteSampler'
    config.default_hooks.checkpoint.by_epoch = False
    config.log_processor = dict(by_epoch=False)
    assert train(config).iter == 4
    assert scalars(tmp_path)[0]['distill.feature.gamma'] > 0


def test_epochs_that_never_come_are_refused(tmp_path):
    entry = feature_entry(schedule=dict(warmup=2))
    config = recipe(tmp_path, distill=dict(feature=entry))
    config.train_cfg = dict(by_epoch=False, max_iters=4, val_interval=2)
    config.train_dataloader.sampler.type = 'InfiniteSampler'
    with pytest.raises(ValueError, match='by_epoch=False'):
        train(config)


def student_weights(runner):
    model = getattr(runner.model, 'student', runner.model)
    return {k: v.clone() for k, v in model.state_dict().items()}


def test_all_weights_zero_is_the_plain_training_bit_for_bit(tmp_path, build):
    """Augmentation, DropPath, clipping, 2 workers, validations, a teacher."""
    path = str(tmp_path / 'teacher.pth')
    torch.save(build(tiny_recipes.classifier(6)).state_dict(), path)
    student = tiny_recipes.classifier(drop_path_rate=0.3)
    settings = dict(epochs=5, images=16, batch_size=4, num_workers=2)
    changes = dict(
        optim_wrapper=dict(clip_grad=dict(max_norm=0.1)),
        train_cfg=dict(val_interval=2),
    )
    plain = tiny_recipes.recipe(tmp_path, student, **settings)
    ours = recipe(
        tmp_path,
        dict(panel_interval=2, panel_images=1),
        student,
        teacher=tiny_recipes.teacher(6, path),
        distill=dict(
            feature=feature_entry(weight=0),
            logits=tiny_recipes.logits_entry(weight=0),
        ),
        **settings,
    )
    for config in (plain, ours):
        config.merge_from_dict(changes)
    ours.work_dir = str(tmp_path / 'ours')
    expected, weights = (
        student_weights(train(plain)),
        student_weights(train(ours)),
    )
    assert expected.keys() == weights.keys()
    for key, value in expected.items():
        assert torch.equal(weights[key], value), key
    # The comparison can fail: with a weight the student differs.
    ours.model.distill.feature.weight = 1e-3
    ours.work_dir = str(tmp_path / 'other')
    other = student_weights(train(ours))
    assert not torch.equal(other['head.fc.weight'], expected['head.fc.weight'])


def test_off_switch_is_logged(tmp_path):
    entry = feature_entry(weight=0)
    train(
        recipe(
            tmp_path,
            epochs=1,
            distill=dict(feature=entry),
            log_level='INFO',
        )
    )
    (log,) = (tmp_path / 'work').glob('*/*.log')
    assert log.read_text().count('distill.feature is off from here on') == 1


@MODELS.register_module()
class MeanLoss(nn.Module):
    """Wants the length of the data, its labels, and a pass over it."""

    def __init__(self, loss_weight=1.0):
        super().__init__()
        self.prepared = False
        self.register_buffer('center', torch.zeros(24))

    def allocate(self, dataset_length, labels=None):
        self.length, self.labels = dataset_length, labels
        torch.rand(3)

    def prepare(self, teachers):
        features = torch.cat([t.mean((2, 3)) for t in teachers])
        self.center.copy_(features.mean(0))
        self.passes = getattr(self, 'passes', 0) + 1
        self.images = len(features)
        self.prepared = True

    def forward(self, preds_S, preds_T, sample_idx):
        assert sample_idx.max() < self.length
        return (preds_S.mean((2, 3)) - self.center).square().mean()


def mean_entry():
    return dict(
        at='backbone[-1]',
        neck=dict(type='ProjectionNeck'),
        loss=dict(type='mmdiffkd.MeanLoss'),
    )


def test_losses_are_allocated_and_prepared_once(tmp_path, slow_items, capsys):
    config = recipe(tmp_path, distill=dict(feature=mean_entry()))
    loss = train(config).model.distill.feature.losses[0]
    said = capsys.readouterr().err
    assert 'Pass of the teacher over the training data: 1 of ' in said
    assert loss.length == loss.images == 8
    assert loss.labels.tolist() == [0] * 4 + [1] * 4
    assert loss.passes == 1 and loss.center.abs().sum() > 0
    config.train_cfg.max_epochs, config.resume = 3, True
    resumed = train(config).model.distill.feature.losses[0]
    assert not hasattr(resumed, 'passes')
    assert torch.equal(resumed.center, loss.center)


def bank_entry():
    return dict(at='neck[-1]', loss=dict(type='CRDLoss', neg_num=4, dim_out=4))


@pytest.mark.parametrize('save_best', [None, 'auto'])
def test_evaluation_needs_no_training_set(tmp_path, save_best):
    config = recipe(tmp_path, distill=dict(pooled=bank_entry()))
    config.default_hooks.checkpoint.save_best = save_best
    shutil.rmtree(tmp_path / 'data/train')
    runner = make_runner(config)
    assert 'accuracy/top1' in runner.val()
    assert runner.model.distill.pooled.losses[0].student_bank is None


def test_evaluation_after_training_keeps_the_banks(tmp_path):
    config = recipe(tmp_path, distill=dict(pooled=bank_entry()))
    runner = train(config)
    bank = runner.model.distill.pooled.losses[0].student_bank
    trained = bank.clone()
    runner.val()
    after = runner.model.distill.pooled.losses[0].student_bank
    assert torch.equal(after, trained)


def several_labels(root, labels):
    """A data set of images with lists of labels."""
    images = sorted((root / 'data/train').glob('*/*'))[: len(labels)]
    described = [
        dict(img_path=str(image), gt_label=label)
        for image, label in zip(images, labels)
    ]
    file = root / 'labels.json'
    metainfo = dict(classes=['a', 'b', 'c'])
    file.write_text(json.dumps(dict(metainfo=metainfo, data_list=described)))
    return dict(type='MultiLabelDataset', data_root='', ann_file=str(file))


@pytest.mark.parametrize(
    'labels',
    [
        [[0, 1], [2], [0, 2], [1]],
        [[0, 1], [1, 2], [0, 2], [0, 1]],
        [[0, 1], [], [0, 2], [1]],
    ],
)
def test_memory_banks_need_one_class_an_image(tmp_path, labels):
    config = recipe(tmp_path, distill=dict(pooled=bank_entry()))
    plain = config.train_dataloader.dataset
    dataset = several_labels(tmp_path, labels)
    config.train_dataloader.dataset = {**dataset, 'pipeline': plain.pipeline}
    message = (
        r'`distill.pooled`: CRDLoss asks for the classes .* MultiLabelDataset'
        r', has no get_gt_labels\(\) that gives one class an image'
    )
    with pytest.raises(ValueError, match=message):
        train(config)
    # What needs only the length goes on.
    config.model.distill = dict(feature=mean_entry())
    runner = make_runner(config)
    distill_hook._allocate(runner)
    loss = runner.model.distill.feature.losses[0]
    assert (loss.length, loss.labels) == (4, None)


@pytest.mark.parametrize('kind', ['CustomDataset', 'plain'])
def test_memory_banks_need_labels(tmp_path, kind):
    config = recipe(tmp_path, distill=dict(pooled=bank_entry()))
    if kind == 'CustomDataset':
        config.train_dataloader.dataset.with_label = False
    else:
        config.train_dataloader.dataset = dict(type='Unlabelled')
    with pytest.raises(ValueError, match='Use a data set of mmpretrain with'):
        train(config)


@DATASETS.register_module()
class Unlabelled(torch.utils.data.Dataset):
    def __len__(self):
        return 8


def test_joined_data_sets_have_no_memory_bank(tmp_path):
    config = recipe(tmp_path, distill=dict(feature=mean_entry()))
    dataset = config.train_dataloader.dataset
    config.train_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[dataset, dataset]
    )
    with pytest.raises(ValueError, match='joins several data sets'):
        train(config)
