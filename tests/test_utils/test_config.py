import pytest
import tiny_recipes
import torch
from mmengine.config import Config

from mmdiffkd.analysis.stock_recipes import distilled
from mmdiffkd.utils import find_config, load_config, plain_recipe


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
