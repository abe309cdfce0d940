import random
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_recipes
import torch
from mmengine.dataset import DefaultSampler
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, TRANSFORMS
from mmengine.runner import EpochBasedTrainLoop
from recipe_files import ROOT
from tiny_recipes import train
from torch.utils.data import DataLoader

from mmdiffkd.safety.exact_resume import ExactResume, check_accumulation
from mmdiffkd.utils import read_checkpoint
from mmdiffkd.utils.randomness import random_state

WORKERS = {
    'in the process': dict(num_workers=0, persistent_workers=False),
    'new each epoch': dict(num_workers=2, persistent_workers=False),
    'persistent': dict(num_workers=2, persistent_workers=True),
}


@HOOKS.register_module()
class DrawingHook(Hook):
    """Draws where hooks of others may."""

    def draw(self, *args, **kwargs):
        torch.rand(1), np.random.rand(), random.random()

    before_train_epoch = before_val_epoch = before_val_iter = draw
    before_train_iter = after_val_epoch = draw


def recipe(
    root,
    custom_hooks=(dict(type='DrawingHook', priority='VERY_LOW'),),
    **changes,
):
    """A recipe whose every part draws: data, batches, student, necks."""
    student = tiny_recipes.classifier(drop_path_rate=0.5)
    student['train_cfg'] = dict(augments=dict(type='Mixup', alpha=0.8))
    config = tiny_recipes.distill_recipe(
        root,
        tiny_recipes.distiller(student),
        epochs=4,
        images=10,
        custom_hooks=list(custom_hooks),
        **changes,
    )
    config.default_hooks.checkpoint.update(
        exact_resume=True, interval=2, save_best='auto'
    )
    config.param_scheduler = [
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=5),
        dict(type='CosineAnnealingLR', begin=1, T_max=3),
    ]
    return config


def by_iterations(config, sampler):
    config.train_cfg = dict(
        type='IterBasedTrainLoop', max_iters=8, val_interval=5
    )
    config.train_dataloader.sampler.type = sampler
    config.default_hooks.checkpoint.update(interval=5, by_epoch=False)
    config.param_scheduler.pop()
    return config


def resume(config, straight, work, name):
    """Go on from one checkpoint of a run, as after a kill."""
    work.mkdir()
    shutil.copy(straight / name, work)
    (work / 'last_checkpoint').write_text(str(work / name))
    config.work_dir = str(work)
    config.resume = True
    # Another process would have other streams.
    torch.manual_seed(99), np.random.seed(99), random.seed(99)
    return train(config)


def differences(*paths):
    """The tensors in which two checkpoints differ."""
    one, other = map(read_checkpoint, paths)
    assert one['meta']['iter'] == other['meta']['iter']
    pairs = []
    for part in ('state_dict', 'distill_state_dict'):
        assert one[part].keys() == other[part].keys()
        pairs += [(k, v, other[part][k]) for k, v in one[part].items()]
    for index, state in one['optimizer']['state'].items():
        for key, value in state.items():
            twin = other['optimizer']['state'][index][key]
            pairs.append(((index, key), value, twin))
    return [name for name, a, b in pairs if not torch.equal(a, b)]


def check_resumed(root, config, saved='epoch_2.pth', last='epoch_4.pth'):
    """A run that stopped ends as one that did not; gives both runners."""
    straight = train(config())
    work, other = root / 'work', root / 'other'
    resumed = resume(config(), work, other, saved)
    assert not differences(work / last, other / last)
    return straight, resumed


@pytest.fixture(scope='module')
def epochs(tmp_path_factory):
    """A run that never stopped, with persistent workers."""
    root = tmp_path_factory.mktemp('epochs')
    config = recipe(root)
    config.train_dataloader.update(WORKERS['persistent'])
    train(config)
    return root


@pytest.mark.parametrize('workers', WORKERS)
def test_epochs(epochs, tmp_path, workers):
    config = recipe(epochs)
    config.train_dataloader.update(WORKERS[workers])
    resume(config, epochs / 'work', tmp_path / 'work', 'epoch_2.pth')
    paths = (root / 'work/epoch_4.pth' for root in (epochs, tmp_path))
    assert not differences(*paths)


def test_without_the_switch_it_is_another_run(epochs, tmp_path):
    config = recipe(epochs)
    config.default_hooks.checkpoint.exact_resume = False
    resume(config, epochs / 'work', tmp_path / 'work', 'epoch_2.pth')
    paths = (root / 'work/epoch_4.pth' for root in (epochs, tmp_path))
    assert differences(*paths)


@pytest.mark.parametrize(
    ('sampler', 'workers'),
    [('InfiniteSampler', 'persistent'), ('DefaultSampler', 'in the process')],
)
def test_iterations(tmp_path, sampler, workers):
    def config():
        cfg = by_iterations(recipe(tmp_path), sampler)
        cfg.train_dataloader.update(WORKERS[workers])
        return cfg

    # In the midst of the second pass over 10 images, 4 at a time.
    check_resumed(tmp_path, config, 'iter_5.pth', 'iter_8.pth')


def test_a_task_that_ends(tmp_path):
    def config():
        cfg = recipe(tmp_path)
        cfg.model.task_schedule = dict(warmup=3, stop=3)
        return cfg

    check_resumed(tmp_path, config)


@pytest.mark.slow
def test_a_task_that_begins(tmp_path):
    def config():
        cfg = recipe(tmp_path)
        cfg.model.task_schedule = dict(start=2)
        return cfg

    check_resumed(tmp_path, config)


@pytest.mark.slow
def test_two_teachers(tmp_path):
    def config():
        cfg = recipe(tmp_path)
        first, second = cfg.model.pop('teacher'), tiny_recipes.teacher(8)
        cfg.model.teachers = dict(first=first, second=second)
        cfg.model.distill.feature.teacher = 'first'
        cfg.model.distill.logits = dict(
            at='head.fc',
            teacher=['first', 'second'],
            loss=dict(type='KLDivergence'),
        )
        return cfg

    check_resumed(tmp_path, config)


@pytest.mark.slow
def test_a_seed_that_nobody_chose_comes_from_the_checkpoint(tmp_path, build):
    weights = tmp_path / 'teacher.pth'
    torch.save(build(tiny_recipes.classifier(6)).state_dict(), weights)

    def config():
        cfg = recipe(tmp_path, randomness=dict(seed=None))
        cfg.model.teacher.checkpoint = str(weights)
        return cfg

    check_resumed(tmp_path, config)


@pytest.mark.slow
def test_two_processes(tmp_path):
    seeds = dict(seed=3, diff_rank_seed=True)
    config = recipe(tmp_path, custom_hooks=[], randomness=seeds)
    config.train_dataloader.batch_size = 2
    config.dump(tmp_path / 'config.py')

    def launch(work, *flags):
        command = [
            'torch.distributed.run',
            '--standalone',
            '--nproc_per_node=2',
        ]
        arguments = [str(tmp_path / 'config.py'), f'--work-dir={work}']
        subprocess.run(
            [
                *(sys.executable, '-m', *command),
                str(ROOT / 'tools/train.py'),
                *arguments,
                '--launcher=pytorch',
                *flags,
            ],
            check=True,
        )

    launch(tmp_path / 'work')
    states = read_checkpoint(tmp_path / 'work/epoch_2.pth')['exact_resume']
    first, second = states['random_states']
    assert not torch.equal(first['torch'], second['torch'])
    start = str(tmp_path / 'work/epoch_2.pth')
    launch(tmp_path / 'other', '--resume', start)
    paths = (tmp_path / f / 'epoch_4.pth' for f in ('work', 'other'))
    assert not differences(*paths)


def test_a_validation_that_was_due_is_made_up_for(tmp_path):
    def config():
        cfg = recipe(tmp_path)
        # No best checkpoint, which would be saved after the validation.
        cfg.default_hooks.checkpoint.save_best = None
        cfg.param_scheduler = [
            dict(
                type='ReduceOnPlateauLR',
                monitor='accuracy/top1',
                rule='greater',
                threshold=1000.0,
                patience=0,
                factor=0.5,
            )
        ]
        return cfg

    straight, resumed = check_resumed(tmp_path, config)
    rates = straight.optim_wrapper.get_lr()['lr']
    assert rates[0] == 0.05 / 4
    assert resumed.optim_wrapper.get_lr()['lr'] == rates


class Log:
    def __init__(self):
        self.lines = []

    def warning(self, line):
        self.lines.append(line)


def start(record, iteration=0, sampler=None, **loop):
    """`ExactResume.start` with the parts of a runner that it looks at."""
    dataset = list(range(8))
    loader = DataLoader(dataset, batch_size=2, sampler=sampler)
    cls = EpochBasedTrainLoop
    train_loop = cls.__new__(cls)
    train_loop.dataloader = loader
    vars(train_loop).update(loop)
    runner = SimpleNamespace(
        train_loop=train_loop,
        train_dataloader=loader,
        val_loop=None,
        iter=iteration,
        seed=3,
        logger=Log(),
    )
    ExactResume().start(runner, record)
    return runner


def record(**changes):
    state = dict(
        random_states=[random_state()], sampler_seed=None, validated=False
    )
    return state | changes


def test_streams_are_restored():
    state = record()
    expected = torch.rand(1), np.random.rand(), random.random()
    assert not start(state, 5).logger.lines
    assert (torch.rand(1), np.random.rand(), random.random()) == expected


def test_a_checkpoint_without_random_state_is_said_to_be_inexact():
    assert not start(None).logger.lines
    (line,) = start(None, 5).logger.lines
    assert 'written without' in line


def test_another_number_of_processes_is_said_to_be_inexact():
    before = torch.get_rng_state()
    (line,) = start(record(random_states=[{}, {}]), 5).logger.lines
    assert 'written by 2 processes and is read by 1' in line
    assert torch.equal(torch.get_rng_state(), before)


def test_the_samplers_seed_comes_from_the_checkpoint():
    sampler = DefaultSampler(range(8), seed=1)
    start(record(sampler_seed=7), 5, sampler)
    assert sampler.seed == 7


def test_what_contradicts_it_is_refused():
    with pytest.raises(ValueError, match='fast_forward_on_resume'):
        start(None, fast_forward_on_resume=True)


def test_transforms_with_a_memory_are_refused():
    mosaic = TRANSFORMS.build(dict(type='mmdet.CachedMosaic'))
    dataset = SimpleNamespace(pipeline=SimpleNamespace(transforms=[mosaic]))
    loader = SimpleNamespace(dataset=dataset)
    runner = SimpleNamespace(train_dataloader=loader)
    with pytest.raises(ValueError, match='CachedMosaic.*Use Mosaic in'):
        ExactResume().start(runner, None)


@pytest.mark.parametrize(
    ('count', 'saved_at', 'fits'),
    [(1, [5], True), (4, [8, -1], True), (4, [8, 6], False)],
)
def test_no_checkpoint_between_two_steps(count, saved_at, fits):
    wrapper = SimpleNamespace(_accumulative_counts=count)
    runner = SimpleNamespace(optim_wrapper=wrapper)
    if fits:
        check_accumulation(runner, saved_at)
    else:
        with pytest.raises(ValueError, match='every 6 iterations.*multiple'):
            check_accumulation(runner, saved_at)
