import re
from pathlib import Path

import pytest
import torch
from generated_data import write_class_folders
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.registry import MODELS, PARAM_SCHEDULERS, DefaultScope
from mmengine.runner import Runner

from mmdiffkd.utils.config import find_config

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(
    path
    for path in (ROOT / 'configs').rglob('*.py')
    if '_base_' not in path.parts
)
DIFFKD = 'diffkd/diffkd_backbone-logits_'
CLASSES = ('first', 'second')


def each(paths):
    return pytest.mark.parametrize(
        'path', list(paths), ids=lambda path: path.stem
    )


def named(*names):
    return [ROOT / 'configs' / f'{name}.py' for name in names]


@pytest.fixture(autouse=True)
def repository_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@each(CONFIGS)
def test_model_is_built_without_a_teacher_file(path, monkeypatch):
    monkeypatch.setattr(torch, 'load', None)
    monkeypatch.setattr(torch.hub, 'load_state_dict_from_url', None)
    cfg = Config.fromfile(path)
    cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    if cfg.model.type == 'mmdiffkd.Distiller':
        assert cfg.model.teacher.checkpoint is not None
        entries = {k for k, v in cfg.model.distill.items() if v is not None}
        assert set(model.distill) == entries != set()


@each(CONFIGS)
def test_name_tells_the_batch_size(path):
    cfg = Config.fromfile(path)
    processes, batch = map(
        int, re.search(r'_(\d+)xb(\d+)-', path.stem).groups()
    )
    assert cfg.train_dataloader.batch_size == batch
    if 'auto_scale_lr' in cfg:
        assert cfg.auto_scale_lr.base_batch_size == processes * batch


@each(p for p in CONFIGS if p.parent.name == 'diffkd' and 'in1k' in p.stem)
def test_published_entries(path):
    cfg = Config.fromfile(path)
    feature, logits = cfg.model.distill.feature, cfg.model.distill.logits
    assert feature.neck.latent_channels == (
        768 if 'swin-large_' in path.stem else 1024
    )
    assert 'latent_channels' not in logits.neck
    assert logits.loss == dict(type='KLDivergence', tau=1.0)


def test_rate_of_b2_falls_every_2_4_epochs():
    cfg = Config.fromfile(ROOT / 'configs/_base_/schedules/imagenet_b2.py')
    weight = torch.nn.Parameter(torch.zeros(1))
    settings = cfg.optim_wrapper.optimizer.to_dict()
    settings.pop('type')
    optimizer = torch.optim.RMSprop([weight], **settings)
    schedulers = [
        PARAM_SCHEDULERS.build(
            scheduler,
            default_args=dict(optimizer=optimizer, epoch_length=1668),
        )
        for scheduler in cfg.param_scheduler
    ]
    rates = []
    for _ in range(9 * 1668):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    for epoch, drops in ((3, 0), (5.3, 0), (5.5, 1), (7.7, 1), (7.9, 2)):
        assert rates[int(epoch * 1668)] == pytest.approx(0.048 * 0.97**drops)


def check_run(path, cfg, tmp_path):
    """Trains for two iterations of two images and evaluates."""
    data = write_class_folders(
        tmp_path / 'data', ('train', 'val', 'test'), CLASSES
    )
    for name in ('train', 'val', 'test'):
        loader = cfg[f'{name}_dataloader']
        loader.update(num_workers=0, persistent_workers=False, batch_size=2)
        loader.dataset.update(
            data_root=str(data), metainfo=dict(classes=CLASSES)
        )
    if 'teacher' in cfg.model:
        cfg.model.teacher.checkpoint = None
    cfg.train_cfg.max_epochs = 1
    cfg.work_dir = str(tmp_path / 'work_dir')
    cfg.experiment_name = path.stem
    cfg.default_hooks.logger.interval = 1
    cfg.default_hooks.checkpoint.save_optimizer = False

    runner = Runner.from_cfg(cfg)
    runner.train()

    assert runner.iter == 2
    scalars = runner.message_hub.log_scalars
    losses = {
        name: buffer.current()
        for name, buffer in scalars.items()
        if name.startswith('train/') and 'loss' in name
    }
    assert torch.isfinite(torch.tensor(list(losses.values()))).all()
    for entry in cfg.model.get('distill', ()):
        assert any(f'/distill.{entry}.loss' in name for name in losses)
    assert any(name.startswith('val/accuracy') for name in scalars)
    assert (tmp_path / 'work_dir' / 'epoch_1.pth').exists()


@each(
    named(
        DIFFKD + 'resnet34_resnet18_8xb32-b1_in1k',
        DIFFKD + 'resnet50-rsb_mobilenet-v2_8xb96-b2_in1k',
        DIFFKD + 'swin-large_swin-tiny_16xb64-b3_in1k',
        'diffkd/diffkd_backbone_resnet14-w24_resnet14-w4_1xb64-20e_digit-scenes',
    )
)
def test_one_of_each_strategy_runs(path, tmp_path):
    cfg = Config.fromfile(path)
    if 'swin-large' in path.stem:
        cfg.model.teacher.config = (
            'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py'
        )
    check_run(path, cfg, tmp_path)


@pytest.mark.slow
@each(CONFIGS)
def test_every_config_runs(path, tmp_path):
    check_run(path, Config.fromfile(path), tmp_path)


METAFILES = [ROOT / name for name in load(ROOT / 'model-index.yml')['Import']]


@pytest.mark.parametrize(
    'metafile', METAFILES, ids=lambda path: path.parent.name
)
def test_metafile_names_what_exists(metafile):
    content = load(metafile)
    collections = {c['Name']: c for c in content['Collections']}
    for collection in collections.values():
        assert (ROOT / collection['README']).is_file()
    for model in content['Models']:
        assert model['In Collection'] in collections
        cfg = Config.fromfile(ROOT / model['Config'])
        assert Path(model['Config']).stem == model['Name']
        metadata = model['Metadata']
        if 'Student' in metadata:
            assert (ROOT / metadata['Student']['Config']).is_file()
        if 'Teacher' in metadata:
            teacher = metadata['Teacher']
            assert teacher['Config'] == cfg.model.teacher.config
            assert find_config(teacher['Config']).is_file()
            checkpoint = cfg.model.teacher.checkpoint
            if checkpoint.startswith('https://'):
                assert teacher['Weights'] == checkpoint


def test_every_config_is_in_a_metafile():
    listed = {
        ROOT / model['Config']
        for metafile in METAFILES
        for model in load(metafile)['Models']
    }
    assert listed == set(CONFIGS)
