from pathlib import Path

import pytest
import tiny_recipes
import torch
from mmengine.config import Config

from mmdiffkd.analysis.stock_recipes import distilled
from mmdiffkd.models.distillers import FrozenTeacher
from mmdiffkd.utils import (
    check_weight_files,
    find_config,
    load_config,
    parse_config,
    plain_recipe,
)


def test_path(tmp_path):
    path = tmp_path / 'a.py'
    path.write_text('x = 1')
    assert load_config(path).x == 1
    assert load_config(str(path)).x == 1
    with pytest.raises(FileNotFoundError, match='absent.py'):
        load_config(tmp_path / 'absent.py')


@pytest.mark.parametrize('suffix', ['', '.py'])
def test_name_in_a_package(suffix):
    name = f'mmpretrain::resnet/resnet18_8xb32_in1k{suffix}'
    assert find_config(name).is_file()
    assert load_config(name).model.backbone.depth == 18


@pytest.mark.parametrize(
    'name',
    [
        'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
        'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py',
    ],
)
def test_other_packages_by_import_name(name):
    pytest.importorskip(name.split('::')[0])
    assert 'model' in load_config(name)


def test_misspelt_names_are_helped():
    with pytest.raises(FileNotFoundError, match='resnet18_8xb32_in1k'):
        load_config('mmpretrain::resnet/resnet18_8xb32_in1')
    with pytest.raises(FileNotFoundError, match="'mmabsent' is not install"):
        load_config('mmabsent::x.py')


def test_a_checkpoint_in_place_of_a_config(tmp_path):
    file = tmp_path / 'epoch_1.pth'
    file.write_bytes(b'')
    with pytest.raises(ValueError, match="epoch_1.pth' is given as a config"):
        load_config(file)


def test_dict_and_config_are_copied():
    source = dict(model=dict(type='A'))
    made = load_config(source)
    made.model.type = 'B'
    assert source['model']['type'] == 'A'
    config = Config(dict(model=dict(type='A')))
    load_config(config).model.type = 'B'
    assert config.model.type == 'A'


def test_bases_of_our_own_keep_the_recipes_scope(tmp_path):
    path = tmp_path / 'own.py'
    path.write_text(
        "_base_ = 'mmdiffkd::baseline/resnet18_8xb32-100e_in1k.py'\n"
        'model = dict(backbone=dict(depth=34))\n'
        'visualizer = dict(name="x")\n'
    )
    config = load_config(path)
    assert config.model.backbone.depth == 34
    assert "'_scope_': 'mmdiffkd'" not in str(config.to_dict())
    assert config.default_scope == 'mmpretrain'


def write_distiller(folder, config, checkpoint):
    teacher = dict(config=config, checkpoint=checkpoint)
    path = folder / 'distiller.py'
    path.write_text(f'model = dict(type="Distiller", teacher={teacher!r})')
    return path


DIGEST = '#sha256=' + '0' * 64


@pytest.mark.parametrize('digest', ['', DIGEST])
def test_files_of_the_teacher_beside_the_config(tmp_path, monkeypatch, digest):
    monkeypatch.chdir(tmp_path)
    folder = Path('recipes')
    (folder / 'inner').mkdir(parents=True)
    names = 'inner/net.py', f'net.pth{digest}'
    path = write_distiller(folder, *names)
    files = [folder / 'inner/net.py', folder / 'net.pth']

    def teacher():
        return tuple(load_config(path).model.teacher.values())

    assert teacher() == names
    for key, file in zip(('config', 'checkpoint'), files):
        with pytest.raises(FileNotFoundError) as error:
            check_weight_files(load_config(path))
        assert f'`model.teacher.{key}` is' in str(error.value)
        place = file.relative_to(folder)
        assert repr(str(tmp_path / file)) in str(error.value)
        assert repr(str(tmp_path / place)) in str(error.value)
        file.touch()
    found = 'recipes/inner/net.py', f'recipes/net.pth{digest}'
    assert teacher() == found
    check_weight_files(load_config(path))
    # What exists from the current directory comes first.
    Path('net.pth').touch()
    assert teacher() == (found[0], names[1])
    # A path of the command line is no path of the file.
    config = load_config(path)
    config.model.teacher.config = names[0]
    with pytest.raises(FileNotFoundError) as error:
        check_weight_files(config)
    assert str(tmp_path / 'inner/net.py') in str(error.value)
    assert str(tmp_path / found[0]) not in str(error.value)


@pytest.mark.parametrize(
    'teacher',
    [
        ('mmpretrain::resnet/resnet18_8xb32_in1k.py', None),
        (dict(model=dict(type='A')), 'https://example.org/net.pth'),
        (__file__, f'~/net.pth{DIGEST}'),
        (__file__, f'https://example.org/net.pth{DIGEST}'),
    ],
)
def test_other_teachers_stay_as_written(tmp_path, monkeypatch, teacher):
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / 'net.pth').touch()
    config = load_config(write_distiller(tmp_path, *teacher))
    assert tuple(config.model.teacher.values()) == teacher
    check_weight_files(config)


@pytest.mark.parametrize(
    'key, wrapped',
    [
        ('model.init_cfg', False),
        ('model.student.backbone.init_cfg', True),
        ('model.student.init_cfg.1', True),
        ('load_from', True),
    ],
)
def test_files_that_training_begins_with(tmp_path, monkeypatch, key, wrapped):
    monkeypatch.chdir(tmp_path)
    weights = dict(type='mmengine.Pretrained', checkpoint='~/start.pth')
    student = dict(type='A', backbone=dict(type='B'))
    model = dict(teacher={}, distill={}, student=student)
    config = Config(dict(model=model if wrapped else student))
    if key == 'load_from':
        config.load_from, named = '~/start.pth', key
    elif key.endswith('.1'):
        config.model.student.init_cfg = [dict(type='Normal'), weights]
        named = f'{key}.checkpoint'
    else:
        config.merge_from_dict({key: weights})
        named = f'{key}.checkpoint'
    monkeypatch.setenv('HOME', str(tmp_path))
    with pytest.raises(FileNotFoundError) as error:
        check_weight_files(config)
    assert f"`{named}` is '~/start.pth', but" in str(error.value)
    assert repr(str(tmp_path / 'start.pth')) in str(error.value)
    (tmp_path / 'start.pth').touch()
    check_weight_files(config)


def test_weights_that_nothing_on_this_disk_holds():
    """They are fetched, or a teacher's, whose own checkpoint counts."""
    absent = dict(type='Pretrained', checkpoint='absent.pth')
    teacher = dict(config=dict(model=dict(init_cfg=absent)), checkpoint=None)
    student = dict(
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')
    )
    model = dict(teacher=teacher, distill={}, student=student)
    check_weight_files(Config(dict(model=model, load_from=None)))


def test_a_teacher_found_beside_a_teacher(tmp_path, monkeypatch, build):
    """Each file says what lies beside itself."""
    for name in ('first', 'first/second'):
        (tmp_path / name).mkdir()
    inner = Config(dict(model=tiny_recipes.classifier(6)))
    inner.dump(tmp_path / 'first/second/net.py')
    teacher = dict(config='second/net.py', checkpoint=None)
    middle = Config(dict(model=tiny_recipes.distiller(teacher=teacher)))
    middle.dump(tmp_path / 'first/middle.py')
    teacher = dict(config='first/middle.py', checkpoint=None)
    outer = Config(dict(model=tiny_recipes.distiller(teacher=teacher)))
    outer.dump(tmp_path / 'outer.py')
    monkeypatch.chdir(tmp_path.parent)
    config = load_config(tmp_path / 'outer.py')
    # The teacher of the outer distiller is the student of the middle one.
    model = build(config.model)
    assert model.teacher.network.head.in_channels == 16
    model = build(load_config(config.model.teacher.config).model)
    assert model.teacher.network.head.in_channels == 24


@pytest.mark.parametrize('way', ['name', 'path', 'copy'])
def test_a_package_is_the_scope_of_its_configs(tmp_path, way):
    name = 'mmpretrain::dinov2/vit-small-p14_dinov2-pre_headless.py'
    if way != 'name':
        name = find_config(name)
    if way == 'copy':
        copy = tmp_path / 'configs/dinov2/net.py'
        copy.parent.mkdir(parents=True)
        copy.write_text(name.read_text())
        assert 'default_scope' not in load_config(copy)
        (tmp_path / 'mmpretrain').mkdir()
        (tmp_path / 'mmpretrain/__init__.py').touch()
        name = copy
    assert load_config(name).default_scope == 'mmpretrain'
    with torch.device('meta'):
        teacher = FrozenTeacher(name, None)
    assert teacher.network.backbone.patch_embed.init_out_size == (37, 37)


@pytest.mark.parametrize('text', ['default_scope = None', ''])
def test_a_scope_that_is_not_missing(tmp_path, text):
    """It may be that of nobody; and our own configs say theirs."""
    folder = tmp_path / 'configs'
    folder.mkdir()
    package = 'mmdet' if text else 'mmdiffkd'
    (tmp_path / package).mkdir()
    (tmp_path / package / '__init__.py').touch()
    (folder / 'net.py').write_text(f'{text}\nx = 1')
    assert load_config(folder / 'net.py').get('default_scope') is None


TEXT = """
a = dict(b=[dict(c=-1.5), ('d', None), True], e={'f-g': dict(h=1)})
i = [dict({'j.k': dict(), 2: 3}), dict()]
"""


def test_text_of_a_config_is_parsed():
    assert parse_config(TEXT).to_dict() == dict(
        a=dict(b=[dict(c=-1.5), ('d', None), True], e={'f-g': dict(h=1)}),
        i=[{'j.k': {}, 2: 3}, {}],
    )
    for name in (
        'resnet/resnet18_8xb32_in1k',
        'swin_transformer/swin-tiny_16xb64_in1k',
    ):
        config = load_config(f'mmpretrain::{name}')
        assert parse_config(config.pretty_text).to_dict() == config.to_dict()


@pytest.mark.parametrize(
    'text',
    [
        'x = open("victim", "w")',
        'x = [c for c in "abc"]',
        'x = y',
        'x = inf',
        'x = dict(**{"a": 1})',
        'x = dict([("a", 1)])',
        'x = dict({"a": 1}, b=2)',
        'x.y = 1',
        'x, y = 1, 2',
        'x = y = 1',
        'import os',
        '{"a": 1}',
        'filename = "a"',
        'x = ' + '(' * 10_000,
        'x = ' + '-' * 10_000 + '1',
        'x = {[]: 1}',
        '\0',
        '(',
    ],
)
def test_more_than_values_in_a_text_is_refused(text):
    with pytest.raises(ValueError, match='more than names and values'):
        parse_config(f'before = 1\n{text}')


@pytest.mark.parametrize(
    'name',
    [
        'mmpretrain::resnet/resnet18_8xb32_in1k.py',
        # A constructor of its own.
        'mmpretrain::beit/benchmarks/beit-base-p16_8xb128-coslr-100e_in1k.py',
        'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
        'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py',
    ],
)
def test_the_plain_recipe_is_what_the_student_came_from(tmp_path, name):
    pytest.importorskip(name.split('::')[0])
    file = str(find_config(name))
    config = distilled(file, ['backbone[-1]'], tmp_path / 'distiller.py')
    before = config.to_dict()
    stock = load_config(file)
    # A preprocessor beside the model moves in.
    if 'data_preprocessor' in stock:
        stock.model.setdefault('data_preprocessor', stock.data_preprocessor)
    assert plain_recipe(config).to_dict() == stock.to_dict()
    assert config.to_dict() == before
    assert plain_recipe(stock) is stock


def test_options_of_the_distillation_are_left_out():
    config = tiny_recipes.with_distill_lines(
        Config(
            dict(
                model=tiny_recipes.distiller(),
                work_dir='work',
                resume=True,
                load_from='epoch_1.pth',
                custom_imports=dict(imports=['mmdiffkd', 'mmengine']),
                custom_hooks=[
                    dict(type='mmdiffkd.DistillHook'),
                    dict(type='mmdiffkd.NonFiniteHook'),
                    dict(type='EMAHook'),
                ],
                strategy=dict(type='mmdiffkd.FSDPStrategy', units=['Block']),
                default_hooks=dict(
                    checkpoint=dict(exact_resume=True, by_epoch=False)
                ),
                optim_wrapper=dict(
                    optimizer=dict(type='SGD', lr=0.1),
                    paramwise_cfg=dict(
                        student_constructor='LayerDecayConstructor',
                        distill_lr_mult=2.0,
                        bias_decay_mult=0.0,
                    ),
                ),
            )
        )
    )
    plain = plain_recipe(config).to_dict()
    assert plain == dict(
        model=tiny_recipes.classifier(),
        resume=False,
        load_from=None,
        custom_imports=dict(imports=['mmdiffkd', 'mmengine']),
        custom_hooks=[
            dict(type='mmdiffkd.NonFiniteHook'),
            dict(type='EMAHook'),
        ],
        strategy=dict(type='FSDPStrategy'),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', by_epoch=False)
        ),
        optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=0.1),
            constructor='LayerDecayConstructor',
            paramwise_cfg=dict(bias_decay_mult=0.0),
        ),
    )
    config.pop('custom_hooks')
    assert plain_recipe(config).custom_imports.imports == ['mmengine']


LAZY = """
from mmdiffkd.engine import CheckpointHook, DistillHook
from mmdiffkd.engine import OptimWrapperConstructor
from mmdiffkd.models import Distiller
from mmengine.optim import OptimWrapper
from mmpretrain.models import ImageClassifier, VGG
from torch.optim import SGD

teacher = dict(type=ImageClassifier, backbone=dict(type=VGG, depth=11))
model = dict(
    type=Distiller,
    student=dict(type=ImageClassifier, backbone=dict(type=VGG, depth=13)),
    teacher=dict(config=dict(model=teacher), checkpoint=None),
    distill=dict(),
    data_preprocessor=dict(mean=[1.0]),
)
optim_wrapper = dict(
    type=OptimWrapper,
    optimizer=dict(type=SGD, lr=0.1),
    constructor=OptimWrapperConstructor,
)
default_hooks = dict(
    checkpoint=dict(type=CheckpointHook, exact_resume=True),
    distill=dict(type=DistillHook),
)
"""


def test_types_that_are_classes(tmp_path):
    path = tmp_path / 'lazy.py'
    path.write_text(LAZY)
    plain = plain_recipe(load_config(path))
    plain.dump(tmp_path / 'plain.py')
    text = (tmp_path / 'plain.py').read_text()
    assert 'mmdiffkd' not in text
    again = Config.fromfile(tmp_path / 'plain.py')
    assert again.model.data_preprocessor == dict(mean=[1.0])
    assert again.model.type == 'mmpretrain.models.ImageClassifier'
    assert again.default_hooks == dict(checkpoint=dict(type='CheckpointHook'))
    assert again.optim_wrapper.keys() == {'type', 'optimizer'}


def test_the_plain_recipe_trains_from_a_file(tmp_path):
    """Bit for bit as the recipe that the student came from."""
    expected = tiny_recipes.train(
        tiny_recipes.recipe(tmp_path, tiny_recipes.classifier())
    )
    config = tiny_recipes.distill_recipe(tmp_path)
    file = tmp_path / 'student.py'
    plain_recipe(config).dump(file)
    plain = Config.fromfile(file, format_python_code=False)
    plain.work_dir = str(tmp_path / 'plain')
    runner = tiny_recipes.train(plain)
    assert (tmp_path / 'plain/epoch_2.pth').is_file()
    found = runner.model.state_dict()
    for name, tensor in expected.model.state_dict().items():
        assert torch.equal(found[name], tensor), name
