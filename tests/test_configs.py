import copy
import re
import runpy
from functools import cache
from pathlib import Path

import pytest
import torch
from generated_data import write_cifar100, write_class_folders
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.fileio import dump, load
from mmengine.registry import DATASETS, MODELS, PARAM_SCHEDULERS, DefaultScope
from mmengine.runner import Runner
from mmpretrain.datasets import CIFAR100
from published_networks import spread

from mmdiffkd.datasets.digit_scenes import LAYOUTS, write_scenes
from mmdiffkd.utils import load_config
from mmdiffkd.utils.config import find_config
from mmdiffkd.utils.data_root import check_data_root

ROOT = Path(__file__).parents[1]
OLD_NAMES = [
    path
    for path in sorted((ROOT / 'configs').rglob('*.py'))
    if path.read_text().startswith('# The old name of this config')
]
CONFIGS = sorted(
    path
    for path in (ROOT / 'configs').rglob('*.py')
    if '_base_' not in path.parts and path not in OLD_NAMES
)
CLASSES = ('first', 'second')
SCOPES = {'cls': 'mmpretrain', 'det': 'mmdet', 'seg': 'mmseg'}
METRICS = {'cls': 'accuracy', 'det': 'coco/bbox_mAP', 'seg': 'mIoU'}


def each(paths):
    return pytest.mark.parametrize(
        'path', list(paths), ids=lambda path: path.stem
    )


def named(*names):
    return [ROOT / 'configs' / f'{name}.py' for name in names]


@cache
def read(path):
    """A config, not to be changed."""
    return Config.fromfile(path)


def method(path):
    return path.stem.partition('_')[0]


def task(path):
    data = path.stem.split('_')[-1]
    if data == 'coco' or data.endswith('-det'):
        return 'det'
    if data.startswith(('cityscapes', 'ade20k')) or data.endswith('-seg'):
        return 'seg'
    return 'cls'


def pair(path):
    """``teacher_student`` of a distillation's config."""
    return '_'.join(path.stem.split('_')[2:4])


def teachers(cfg):
    """What a distillation's config says of each teacher."""
    several = cfg.model.get('teachers')
    return [*several.values()] if several else [cfg.model.teacher]


DISTILLATIONS = [p for p in CONFIGS if p.parent.name != 'baseline']
ON_CIFAR = [p for p in DISTILLATIONS if p.stem.endswith('_cifar100')]
#: Of foundation models, so large that the tests run them shrunk.
RADIO = [p for p in DISTILLATIONS if p.parent.name == 'radio']
ON_COCO = [
    p for p in DISTILLATIONS if p.stem.endswith('_coco') and p not in RADIO
]
ON_CITYSCAPES = [p for p in DISTILLATIONS if '_cityscapes' in p.stem]
PAIRS = sorted({pair(p) for p in ON_CIFAR})


def one_of_each_method():
    """On CIFAR-100, each with another pair; where it is not, as it comes."""
    on_cifar = {method(p) for p in ON_CIFAR}
    for i, name in enumerate(sorted(on_cifar)):
        wanted = name, PAIRS[i % len(PAIRS)]
        yield from (p for p in ON_CIFAR if (method(p), pair(p)) == wanted)
    for name in sorted({method(p) for p in DISTILLATIONS} - on_cifar):
        if name == 'radio':
            continue
        yield next(p for p in DISTILLATIONS if method(p) == name)


SAMPLE = list(one_of_each_method())

METAFILES = [ROOT / name for name in load(ROOT / 'model-index.yml')['Import']]
LISTED = {
    ROOT / model['Config']: model['Metadata']
    for metafile in METAFILES
    for model in load(metafile)['Models']
}


@pytest.fixture(autouse=True)
def repository_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def check_build(path, monkeypatch):
    """Builds the model, reading no file of weights."""
    monkeypatch.setattr(torch, 'load', None)
    monkeypatch.setattr(torch.hub, 'load_state_dict_from_url', None)
    cfg = copy.deepcopy(read(path))
    if task(path) == 'cls':
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    if cfg.model.type == 'mmdiffkd.Distiller':
        assert all(t.checkpoint is not None for t in teachers(cfg))
        entries = {k for k, v in cfg.model.distill.items() if v is not None}
        assert set(model.distill) == entries != set()
    if 'Parameters' in LISTED[path]:
        number = sum(p.numel() for p in model.parameters())
        assert number == LISTED[path]['Parameters']


LARGE = [*RADIO, *(p for p in CONFIGS if re.search('x101|swin-large', p.stem))]


@each(
    p for p in CONFIGS if p not in LARGE and (p not in ON_CIFAR or p in SAMPLE)
)
def test_model_is_built_without_a_teacher_file(path, monkeypatch):
    check_build(path, monkeypatch)


@pytest.mark.slow
@each(p for p in CONFIGS if p in LARGE or p in ON_CIFAR and p not in SAMPLE)
def test_every_model_is_built_without_a_teacher_file(path, monkeypatch):
    check_build(path, monkeypatch)


@each(CONFIGS)
def test_name_tells_the_batch_size(path):
    cfg = read(path)
    processes, batch = map(
        int, re.search(r'_(\d+)xb(\d+)-', path.stem).groups()
    )
    assert cfg.train_dataloader.batch_size == batch
    if 'auto_scale_lr' in cfg:
        assert cfg.auto_scale_lr.base_batch_size == processes * batch


@each(OLD_NAMES)
def test_an_old_name_is_the_new_config(path):
    (new,) = re.findall(r"'\./(.*)'", path.read_text())
    new = read(path.with_name(new))
    assert Config.fromfile(path).to_dict() == new.to_dict()


def test_old_names_are_those_of_the_imagenet_recipes():
    assert len(OLD_NAMES) == 32
    for path in OLD_NAMES:
        assert re.search('(-b[123]_in1k|/imagenet_b[123])$', str(path)[:-3])


def tapped(entry):
    """The word for an entry's tap in the names of configs."""
    taps = [entry[key] for key in ('at', 'student_at') if key in entry]
    for tap in taps:
        if 'bbox_head.' in str(tap):
            return 'reg'
        if tap in ('backbone[1]', 'backbone.layer2'):
            return 'stage2'
        if isinstance(tap, list) or re.search(r'\d:', tap):
            return 'stages'
        return {
            'backbone[-1]': 'backbone',
            'neck[-1]': 'pooled',
            'head.fc': 'logits',
            'neck[:]': 'fpn',
            'decode_head.conv_seg': 'logits',
            'auxiliary_head.conv_seg': 'aux',
        }[tap]


# The ImageNet teachers of the longer recipes are named otherwise.
@each(p for p in DISTILLATIONS if not re.search('-[34]..e_in1k', p.stem))
def test_name_tells_what_is_in_it(path):
    cfg = read(path)
    name, taps, teacher, student, *recipe = path.stem.split('_')
    if name != 'logit-projector':
        assert name == path.parent.name
    found = {tapped(entry): None for entry in cfg.model.distill.values()}
    assert sorted(taps.split('-')) == sorted(found)
    networks = [t.config for t in teachers(cfg)]
    assert set(teacher.split('-')) <= words_of(*networks)
    if networks[0].startswith('mmdiffkd::'):
        assert f'/{teacher}_' in networks[0]

    plain = LISTED[path]['Student']['Config']
    if path in RADIO:
        assert set(student.split('-')) <= words_of(plain)
    elif path not in ON_COCO:
        assert Path(plain).stem == '_'.join([student, *recipe])
    baseline, cfg = (
        without_scopes(copy.deepcopy(read(p)._cfg_dict))
        for p in (find_config(plain).absolute(), path)
    )
    networks = [cfg.model.student, baseline.model]
    for network in networks if task(path) == 'cls' else ():
        network.head.loss.pop('loss_weight', None)
    assert networks[0] == networks[1]
    data = 'train_dataloader', 'val_dataloader', 'val_evaluator'
    if cfg.model.get('task_weight') == 0:  # images without labels
        assert cfg.val_dataloader is cfg.val_evaluator is None
        data = ()
    for key in (
        *data,
        'data_preprocessor',
        'param_scheduler',
        'train_cfg',
    ):
        assert cfg.get(key) == baseline.get(key)
    for key in ('optimizer', 'clip_grad'):
        assert cfg.optim_wrapper.get(key) == baseline.optim_wrapper.get(key)


def words_of(*configs):
    """The words in the names of configs."""
    return {w for name in configs for w in re.split('[-_]', Path(name).stem)}


def without_scopes(value):
    """A config without what MMEngine notes of another package's."""
    if isinstance(value, dict):
        value.pop('_scope_', None)
        value.pop('_delete_', None)
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, (dict, list, tuple)):
            without_scopes(item)
    return value


@each(p for p in CONFIGS if p.parent.name == 'diffkd' and 'in1k' in p.stem)
def test_published_entries(path):
    cfg = read(path)
    feature, logits = cfg.model.distill.feature, cfg.model.distill.logits
    assert feature.neck.latent_channels == (
        768 if 'swin-large_' in path.stem else 1024
    )
    assert 'latent_channels' not in logits.neck
    assert logits.loss == dict(type='KLDivergence', tau=1.0)


@each(ON_COCO)
def test_published_entries_on_coco(path):
    cfg = read(path)
    fpn, reg = cfg.model.distill.fpn, cfg.model.distill.reg
    assert fpn.at == 'neck[:]'
    assert fpn.neck == dict(type='DiffKDNeck')
    weight = 15.0 if 'reppoints' in path.stem else 5.0
    assert fpn.loss == dict(type='MSELoss', loss_weight=weight)
    assert reg.loss == dict(type='SmoothL1Loss')
    assert cfg.train_cfg.max_epochs == 24
    assert cfg.optim_wrapper.optimizer.type == 'SGD'
    assert cfg.optim_wrapper.optimizer.weight_decay == 1e-4


@each(ON_CITYSCAPES)
def test_published_entries_on_cityscapes(path):
    cfg = read(path)
    entries = {'decode_head': cfg.model.distill.logits}
    if cfg.model.student.auxiliary_head is not None:
        entries['auxiliary_head'] = cfg.model.distill.aux
        assert cfg.model.distill.aux.weight == 0.4
        assert cfg.model.student.auxiliary_head.loss_decode.loss_weight == 0.4
    for head, entry in entries.items():
        assert entry.at == f'{head}.conv_seg'
        assert entry.neck == dict(type='DiffKDNeck')
        assert entry.loss == dict(type='DISTLoss')
    assert len(cfg.model.distill) == len(entries)
    assert cfg.optim_wrapper.optimizer == dict(
        type='SGD', lr=0.02, momentum=0.9, weight_decay=5e-4
    )
    (decay,) = cfg.param_scheduler
    assert (decay.power, decay.eta_min, decay.end) == (0.9, 1e-4, 40000)
    assert cfg.train_cfg.max_iters == 40000
    assert cfg.model.student.data_preprocessor.size == (512, 1024)


def test_ten_pairs_of_every_method_on_cifar100():
    assert len(PAIRS) == 10
    methods = {
        *('crd', 'ddkd', 'diffkd', 'dist', 'dkd', 'dskd', 'fitnet', 'kd'),
        *('pefd', 'pkt', 'rkd', 'vid'),
    }
    found = [(method(p), pair(p)) for p in ON_CIFAR]
    assert sorted(found) == sorted(
        (name, both) for name in methods for both in PAIRS
    )
    # And the quick tests run every one of them with some other.
    assert {pair(p) for p in SAMPLE if p in ON_CIFAR} == set(PAIRS)


@each(
    p
    for p in ON_CIFAR + CONFIGS
    if method(p) == 'kd' or p.parent.name == 'baseline'
    if p.stem.endswith('_cifar100')
)
def test_rate_on_cifar100(path):
    cfg = read(path)
    student = path.stem.split('_')[-3]
    small = student.startswith(('mobilenet', 'shufflenet'))
    assert cfg.optim_wrapper.optimizer == dict(
        type='SGD',
        lr=0.01 if small else 0.05,
        momentum=0.9,
        weight_decay=5e-4,
    )
    assert cfg.param_scheduler.milestones == [150, 180, 210]
    assert cfg.train_cfg.max_epochs == 240


@pytest.mark.parametrize(
    'name, std, has_bias',
    [
        ('resnet20', (3 * 64) ** -0.5, True),
        ('shufflenet-v1', (3 * 960) ** -0.5, True),
        ('wrn-16-2', (3 * 128) ** -0.5, False),
        ('vgg8', 0.01, False),
        ('mobilenet-v2-half', 0.01, False),
    ],
)
def test_classifiers_begin_as_in_the_literature(name, std, has_bias):
    (path,) = named(f'baseline/{name}_1xb64-240e_cifar100')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(copy.deepcopy(read(path).model))
    model.init_weights()
    fc = model.head.fc
    assert spread(fc.weight) == pytest.approx(std, rel=0.05)
    assert bool(fc.bias.any()) == has_bias


# Those of Zhao et al.'s configurations.
BETAS = {
    'resnet56_resnet20': 2,
    'resnet32x4_resnet8x4': 8,
    'wrn-40-2_wrn-16-2': 6,
    'wrn-40-2_wrn-40-1': 6,
    'vgg13_vgg8': 6,
    'vgg13_mobilenet-v2-half': 6,
    'resnet32x4_shufflenet-v1': 8,
    'resnet32x4_shufflenet-v2': 8,
    'wrn-40-2_shufflenet-v1': 8,
    'resnet50_mobilenet-v2-half': 8,
    'resnet34_resnet18': 0.5,
    'resnet50_mobilenet-v1': 2,
}


@each(
    p
    for p in DISTILLATIONS
    if method(p) in ('dkd', 'ddkd') and 'digit-scenes' not in p.stem
)
def test_beta_is_the_pairs(path):
    entry = read(path).model.distill.logits
    small = path.stem.endswith('_cifar100')
    assert entry.loss == dict(
        type='DKDLoss',
        tau=4.0 if small else 1.0,
        alpha=1.0,
        beta=BETAS[pair(path)],
    )
    assert entry.get('schedule') == (dict(warmup=20) if small else None)


@each(
    p
    for p in DISTILLATIONS
    if task(p) == 'cls' and 'digit-scenes' not in p.stem
)
def test_weight_of_the_task(path):
    weight = read(path).model.student.head.loss.get('loss_weight', 1.0)
    kd = {'cifar100': 0.1, 'in1k': 0.9}[path.stem.split('_')[-1]]
    assert weight == (kd if method(path) == 'kd' else 1.0)


@each(p for p in ON_CIFAR if method(p) == 'vid')
def test_all_stages_of_the_networks_are_tapped(path):
    four = pair(path).startswith(('vgg13', 'resnet50'))
    stages = read(path).model.distill.stages
    assert stages.at == f'backbone[0:{4 if four else 3}]'


def test_rate_of_rmsprop_falls_every_2_4_epochs():
    (path,) = named('_base_/schedules/imagenet_rmsprop-450e')
    cfg = Config.fromfile(path)
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


@pytest.fixture
def cifar100(monkeypatch):
    """mmpretrain's data set, for files of any content."""
    for name in ('train_list', 'test_list'):
        files = [[file, None] for file, _ in getattr(CIFAR100, name)]
        monkeypatch.setattr(CIFAR100, name, files)


def use_classes(cfg, folder):
    """Generated images for a classifier."""
    if cfg.train_dataloader.dataset.type == 'CIFAR100':
        changes = dict(data_root=str(write_cifar100(folder)))
    else:
        write_class_folders(folder, ('train', 'val', 'test'), CLASSES)
        changes = dict(data_root=str(folder), metainfo=dict(classes=CLASSES))
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        # Some are in a data set that caches them.
        loader.dataset.get('dataset', loader.dataset).update(changes)
    bare(cfg.model.get('student', cfg.model))


def use_scenes(cfg, folder, kind):
    """A few digit scenes for a detector or a segmentor, whole as they are."""
    write_scenes(folder, kind, dict(train=4, val=4))
    size = LAYOUTS[kind].height, LAYOUTS[kind].width
    for loader, split in (
        (cfg.train_dataloader, 'train'),
        (cfg.val_dataloader, 'val'),
    ):
        if loader is None:
            continue
        # Some are in a data set that caches them.
        dataset = loader.dataset.get('dataset', loader.dataset)
        dataset.data_root = str(folder / kind)
        if cfg.model.get('task_weight') == 0:  # images without labels
            dataset.data_prefix = dict(img_path=split)
            dataset.img_suffix = '.png'
        elif kind == 'det':
            dataset.ann_file = f'annotations/instances_{split}.json'
            dataset.data_prefix = dict(img=split)
            annotations = folder / kind / dataset.ann_file
            if 'metainfo' not in dataset:
                call_digits_as_coco_does(annotations)
            cfg.val_evaluator.ann_file = str(annotations)
        else:
            dataset.data_prefix = dict(
                img_path=f'leftImg8bit/{split}', seg_map_path=f'gtFine/{split}'
            )
            dataset.img_suffix = '_leftImg8bit.png'
            dataset.seg_map_suffix = '_gtFine_labelTrainIds.png'
        for transform in dataset.pipeline:
            for key, value in (
                ('scale', size[::-1]),
                ('scales', [size[::-1]]),
                ('crop_size', size),
                ('img_scale', size),
                ('size', size),
            ):
                if key in transform:
                    transform[key] = value
    student = cfg.model.get('student', cfg.model)
    if 'size' in student.data_preprocessor:
        student.data_preprocessor.size = size
    if student is not cfg.model:
        cfg.model.input_size = size
    bare(student)


def call_digits_as_coco_does(annotations):
    content = load(annotations)
    content['categories'] = [
        dict(id=i, name=name)
        for i, name in enumerate(CocoDataset.METAINFO['classes'], 1)
    ]
    dump(content, annotations)


def bare(value):
    """Without files of weights, for one CPU; every prediction counts."""
    for key, item in value.items() if isinstance(value, dict) else ():
        if key == 'pretrained' or (
            isinstance(item, dict) and item.get('type') == 'Pretrained'
        ):
            value[key] = None
        elif item == 'SyncBN':
            value[key] = 'BN'
        elif key == 'score_thr':
            value[key] = 0.0
        else:
            bare(item)


def check_run(path, cfg, tmp_path):
    """Trains for two iterations of two images and evaluates."""
    if task(path) == 'cls':
        use_classes(cfg, tmp_path / 'data')
    else:
        use_scenes(cfg, tmp_path / 'data', task(path))
    if path in ON_COCO:
        # So small an image leaves one position in the last level, on which
        # batch norm over two images has a gradient without bounds.
        cfg.model.distill.fpn.at = 'neck[0:3]'
    cfg.test_dataloader = cfg.val_dataloader
    cfg.test_evaluator = cfg.val_evaluator
    cfg.test_cfg = cfg.val_cfg
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        if loader is not None:
            loader.update(
                num_workers=0, persistent_workers=False, batch_size=2
            )
    for teacher in teachers(cfg) if 'distill' in cfg.model else ():
        teacher.checkpoint = None
    if 'max_iters' in cfg.train_cfg:
        cfg.train_cfg.update(max_iters=2, val_interval=2)
    else:
        cfg.train_cfg.update(max_epochs=1, val_interval=1)
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
    if cfg.val_dataloader is not None:
        metric = f'val/{METRICS[task(path)]}'
        assert any(name.startswith(metric) for name in scalars)
    assert list((tmp_path / 'work_dir').glob('*_[12].pth'))


@each(
    named(
        'diffkd/diffkd_backbone_resnet14-w24_resnet14-w4_1xb64-4e_digit-scenes',
        'diffkd/diffkd_fpn-reg_retinanet-w24_retinanet-w8_1xb16-6e_digit-scenes-det',
        'diffkd/diffkd_logits-aux_pspnet-w16_pspnet-w8_1xb8-6e_digit-scenes-seg',
    )
)
def test_one_of_each_task_runs(path, tmp_path):
    check_run(path, Config.fromfile(path), tmp_path)


@each(SAMPLE)
def test_one_of_each_method_runs(path, tmp_path, cifar100):
    check_run(path, Config.fromfile(path), tmp_path)


def shrink(cfg):
    """Narrow networks of the same structure, and small images for them."""
    student = cfg.model.student
    if student.type == 'RetinaNet':
        student.backbone.update(stem_channels=8, base_channels=8)
        student.neck.in_channels = [32, 64, 128, 256]
    if student.type == 'RTMDet':
        # Untrained, it may otherwise predict boxes without an area alone.
        student.bbox_head.exp_on_reg = True
    arch = dict(
        embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32
    )
    for teacher in teachers(cfg):
        network = load_config(teacher.config)
        backbone = network.model.backbone
        if backbone.type == 'ResNeXt':
            backbone.update(depth=50, groups=4)
            network.model.roi_head.bbox_head.fc_out_channels = 16
        else:
            sam = dict(global_attn_indexes=[1])
            backbone.arch = arch | (sam if backbone.type == 'ViTSAM' else {})
            teacher.input_size = 16 * backbone.patch_size
        teacher.config = network.to_dict()


@each(RADIO)
def test_foundation_models_run_small(path, tmp_path):
    # Laying out the text of a config takes seconds.
    cfg = copy.deepcopy(read(path)._cfg_dict)
    cfg = Config(cfg, format_python_code=False)
    shrink(cfg)
    check_run(path, cfg, tmp_path)


@pytest.mark.slow
@each(p for p in CONFIGS if p not in RADIO)
def test_every_config_runs(path, tmp_path, cifar100):
    check_run(path, Config.fromfile(path), tmp_path)


def test_missing_cifar100_is_said_and_not_fetched(tmp_path, monkeypatch):
    cfg = read(ROOT / 'configs/baseline/resnet20_1xb64-240e_cifar100.py')
    loaders = 'train_dataloader', 'val_dataloader', 'test_dataloader'
    monkeypatch.chdir(tmp_path)
    for loader in loaders:
        assert cfg[loader].dataset.download is False
        with pytest.raises(FileNotFoundError, match=r"'data/cifar100'"):
            check_data_root(cfg, [loader])
    # The folder is there, but nothing in it.
    (tmp_path / 'data/cifar100').mkdir(parents=True)
    dataset = {**cfg.train_dataloader.dataset}
    dataset.pop('type')
    with pytest.raises(RuntimeError, match='Cannot find CIFAR100'):
        CIFAR100(**dataset)


NUMBERS = {'train_dataloader': 2, 'val_dataloader': 3, 'test_dataloader': 4}


@pytest.fixture(params=LAYOUTS)
def scenes(request, tmp_path, monkeypatch):
    """The config of a task's data, in a folder with 2, 3 and 4 scenes."""
    cfg = Config.fromfile(
        f'configs/_base_/datasets/digit_scenes_{request.param}.py'
    )
    cfg.default_scope = SCOPES[request.param]
    monkeypatch.chdir(tmp_path)
    root = Path('data/digit_scenes')
    write_scenes(root, request.param, dict(train=2, val=3, test=4))
    return cfg, root


def test_val_reads_val_and_test_reads_test(scenes):
    cfg, _ = scenes
    check_data_root(cfg, NUMBERS)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        sizes = {
            loader: len(DATASETS.build(cfg[loader].dataset))
            for loader in NUMBERS
        }
    assert sizes == NUMBERS
    for split in ('val', 'test'):
        annotations = cfg[f'{split}_evaluator'].get('ann_file')
        if annotations is not None:
            assert annotations.endswith(f'/instances_{split}.json')
            assert Path(annotations).is_file()


def test_scenes_of_an_earlier_version_are_written_again(scenes):
    cfg, root = scenes
    for path in sorted(root.rglob('*val*'), reverse=True):
        path.rename(path.with_name(path.name.replace('val', 'tuning')))
    check_data_root(cfg, ['train_dataloader', 'test_dataloader'])
    with pytest.raises(FileNotFoundError, match='val.*`tuning`.*again'):
        check_data_root(cfg, ['val_dataloader'])


def listed_teachers(metadata):
    """The teachers in a metafile: one, or a list of several."""
    listed = metadata['Teacher']
    return listed if isinstance(listed, list) else [listed]


@pytest.mark.parametrize(
    'metafile', METAFILES, ids=lambda path: path.parent.name
)
def test_metafile_names_what_exists(metafile):
    content = load(metafile)
    collections = {c['Name']: c for c in content['Collections']}
    for collection in collections.values():
        assert (ROOT / collection.get('README', 'README.md')).is_file()
    for model in content['Models']:
        assert model['In Collection'] in collections
        cfg = read(ROOT / model['Config'])
        assert Path(model['Config']).stem == model['Name']
        metadata = model['Metadata']
        if 'Student' in metadata:
            assert find_config(metadata['Student']['Config']).is_file()
        if 'Teacher' in metadata:
            for listed, used in zip(
                listed_teachers(metadata), teachers(cfg), strict=True
            ):
                assert (
                    find_config(listed['Config']).resolve()
                    == find_config(used.config).resolve()
                )
                if used.checkpoint.startswith('https://'):
                    assert listed['Weights'] == used.checkpoint


def test_metafiles_are_current():
    """If this fails, run ``python tools/misc/make_metafiles.py``.

    Parameters are left out: each network is built by a test of its own.
    """
    tool = runpy.run_path(str(ROOT / 'tools/misc/make_metafiles.py'))
    files = tool['metafiles'](
        read, lambda cfg: LISTED.get(Path(cfg.filename), {}).get('Parameters')
    )
    assert [*files] == [*METAFILES, ROOT / 'model-index.yml']
    for path, content in files.items():
        assert load(path) == content


def test_all_published_figures_are_used():
    facts = load(ROOT / 'configs/published_figures.yml')
    methods = {'baseline', *(method(p) for p in DISTILLATIONS)}
    assert set(facts['Collections']) <= methods
    used = {p.stem for p in CONFIGS}
    for metadata in LISTED.values():
        if 'Teacher' in metadata:
            networks = [metadata['Student'], *listed_teachers(metadata)]
            used.update(network['Config'] for network in networks)
    for figures in (facts['Teachers'], *facts['Published'].values()):
        assert set(figures) <= used


def test_every_config_is_in_a_metafile():
    assert set(LISTED) == set(CONFIGS)
