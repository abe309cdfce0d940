import os
import sys

import pytest
import torch
from mmengine.config import Config
from recipe_files import load_tool, run_tool, write_recipe


@pytest.fixture
def recipe(tmp_path):
    return write_recipe(tmp_path)


def merged(monkeypatch, config, *arguments):
    """The config as train.py hands it to the runner."""
    monkeypatch.setattr(
        sys, 'argv', ['train.py', str(config), *map(str, arguments)]
    )
    tool = load_tool('train.py')
    args = tool['parse_args']()
    cfg = tool['read_run_config'](args)
    tool['merge_args'](cfg, args)
    return cfg


def test_distiller_trains_and_resumes(recipe, monkeypatch):
    work_dir = recipe / 'run'
    config = recipe / 'distiller.py'
    run_tool(monkeypatch, 'train.py', config, '--work-dir', work_dir)
    run_tool(
        monkeypatch,
        'train.py',
        config,
        f'--work-dir={work_dir}',
        '--resume',
        '--cfg-options',
        'train_cfg.max_epochs=2',
    )
    first, second = (
        torch.load(work_dir / f'epoch_{i}.pth', weights_only=False)
        for i in (1, 2)
    )
    assert (first['meta']['epoch'], second['meta']['epoch']) == (1, 2)
    assert (first['meta']['iter'], second['meta']['iter']) == (2, 4)
    # The second run started from the first one's optimizer, not from none.
    logs = sorted(work_dir.glob('2*/*.log'))
    assert 'resumed' in logs[-1].read_text()


def test_work_dir_is_the_flags_or_the_configs_or_the_name(recipe, monkeypatch):
    plain = recipe / 'plain.py'
    cfg = merged(monkeypatch, plain)
    assert cfg.work_dir == './work_dirs/plain'
    cfg = merged(monkeypatch, plain, '--cfg-options', 'work_dir=theirs')
    assert cfg.work_dir == 'theirs'
    cfg = merged(
        monkeypatch,
        plain,
        '--work-dir=ours',
        '--cfg-options',
        'work_dir=theirs',
    )
    assert cfg.work_dir == 'ours'


def test_amp(recipe, monkeypatch):
    cfg = merged(monkeypatch, recipe / 'plain.py', '--amp')
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'
    cfg = merged(
        monkeypatch,
        recipe / 'plain.py',
        '--amp',
        '--cfg-options',
        'optim_wrapper.loss_scale=512',
    )
    assert cfg.optim_wrapper.loss_scale == 512


@pytest.mark.parametrize(
    ('arguments', 'resume', 'load_from'),
    [
        ([], False, None),
        (['--resume'], True, None),
        (['--resume', 'auto'], True, None),
        (['--resume', 'a.pth'], True, 'a.pth'),
    ],
)
def test_resume(recipe, monkeypatch, arguments, resume, load_from):
    cfg = merged(monkeypatch, recipe / 'plain.py', *arguments)
    assert cfg.get('resume', False) is resume
    assert cfg.get('load_from') == load_from


def test_a_run_without_checkpoints_starts_from_its_own_weights(
    recipe, monkeypatch
):
    work = recipe / 'work'
    flags = ['--resume', f'--work-dir={work}']
    options = ['--cfg-options', 'load_from=weights.pth']
    plain = recipe / 'plain.py'
    cfg = merged(monkeypatch, plain, *flags, *options)
    assert (cfg.get('resume', False), cfg.load_from) == (False, 'weights.pth')
    work.mkdir()
    (work / 'last_checkpoint').write_text('epoch_1.pth')
    cfg = merged(monkeypatch, plain, *flags, *options)
    assert (cfg.resume, cfg.load_from) == (True, None)


def test_no_validate(recipe, monkeypatch):
    cfg = merged(monkeypatch, recipe / 'plain.py', '--no-validate')
    assert cfg.val_cfg is cfg.val_dataloader is cfg.val_evaluator is None


NECK = 'model.distill.feature.neck'


@pytest.mark.parametrize(
    'option, message',
    [
        ('model.distill.features.weight=0.5', "distill.features.*'feature'"),
        ('model.distill.features=None', "distill.features=None.*'feature'"),
        ('model.distil.feature.weight=1', "'distil'.*'distill'"),
        ('model.teacher.chekpoint=a.pth', "'chekpoint'.*'checkpoint'"),
        ('model.student.bakbone.depth=13', "`student`.*'bakbone'"),
        ('model.distill.feature.wieght=1', "'wieght'.*'weight'"),
        ('model.distill.feature.schedule.wamup=1', "'wamup'.*'warmup'"),
        ('model.distill.feature.loss.los_weight=1', "'los_weight'.*'loss_wei"),
        (f'{NECK}.type=ProjectionNeck', f'{NECK}._delete_=True {NECK}.type='),
    ],
)
def test_a_wrong_option_is_named(recipe, monkeypatch, option, message):
    with pytest.raises((TypeError, ValueError), match=message):
        run_tool(
            monkeypatch,
            'train.py',
            recipe / 'distiller.py',
            f'--work-dir={recipe / "run"}',
            '--cfg-options',
            option,
        )


def test_a_neck_is_replaced_on_the_command_line(recipe, monkeypatch):
    cfg = merged(
        monkeypatch,
        recipe / 'distiller.py',
        '--cfg-options',
        f'{NECK}._delete_=True',
        f'{NECK}.type=ProjectionNeck',
    )
    assert cfg.model.distill.feature.neck == dict(type='ProjectionNeck')


def test_dataloader_defaults(recipe, monkeypatch):
    workers = ['--cfg-options', 'train_dataloader.num_workers=2']
    plain = recipe / 'plain.py'
    cfg = merged(monkeypatch, plain, *workers)
    assert cfg.train_dataloader.persistent_workers is True
    assert cfg.train_dataloader.collate_fn.type == 'default_collate'
    assert cfg.train_dataloader.pin_memory is torch.cuda.is_available()
    # Without workers, persistent ones would be an error of PyTorch's.
    assert cfg.val_dataloader.persistent_workers is False
    cfg = merged(
        monkeypatch,
        plain,
        '--no-persistent-workers',
        '--no-pin-memory',
        *workers,
        'train_dataloader.persistent_workers=True',
        'train_dataloader.pin_memory=True',
    )
    assert cfg.train_dataloader.persistent_workers is False
    assert cfg.train_dataloader.pin_memory is False
    # Images of detectors differ in size: they are not stacked.
    cfg = merged(monkeypatch, plain, '--cfg-options', 'default_scope=mmdet')
    assert 'collate_fn' not in cfg.train_dataloader


def test_auto_scale_lr(recipe, monkeypatch):
    cfg = merged(monkeypatch, recipe / 'plain.py', '--auto-scale-lr')
    assert cfg.auto_scale_lr.enable is True
    config = recipe / 'without.py'
    without = Config.fromfile(recipe / 'plain.py')
    without.pop('auto_scale_lr')
    without.dump(config)
    with pytest.raises(KeyError, match='auto_scale_lr.base_batch_size'):
        merged(monkeypatch, config, '--auto-scale-lr')


@pytest.mark.parametrize('spelling', ['--local_rank', '--local-rank'])
def test_local_rank_is_read_in_both_spellings(recipe, monkeypatch, spelling):
    # Set and taken away again, so that monkeypatch restores what was there.
    monkeypatch.setenv('LOCAL_RANK', '')
    monkeypatch.delenv('LOCAL_RANK')
    merged(monkeypatch, recipe / 'plain.py', f'{spelling}=3')
    assert os.environ['LOCAL_RANK'] == '3'


def test_missing_data_end_the_run_before_anything_is_built(
    recipe, monkeypatch
):
    with pytest.raises(
        FileNotFoundError, match=r'train_dataloader\.dataset\.data_root'
    ):
        run_tool(
            monkeypatch,
            'train.py',
            recipe / 'plain.py',
            f'--work-dir={recipe / "run"}',
            '--cfg-options',
            'train_dataloader.dataset.data_root=nowhere',
        )
    assert not (recipe / 'run').exists()


def test_unreadable_image_is_named(recipe, monkeypatch):
    image = recipe / 'data/train/first/0.png'
    image.write_bytes(b'')
    with pytest.raises(ValueError, match=str(image)):
        run_tool(
            monkeypatch,
            'train.py',
            recipe / 'plain.py',
            f'--work-dir={recipe / "run"}',
        )
