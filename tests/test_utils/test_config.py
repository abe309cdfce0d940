import pytest
from mmengine.config import Config

from mmdiffkd.utils import find_config, load_config


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
