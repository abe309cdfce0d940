import subprocess
import sys
from importlib import metadata

import mmengine
import pytest
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import MODELS, DefaultScope

import mmdiffkd
from mmdiffkd.utils import setup_env


def test_versions_by_import_name():
    assert setup_env.package_version('mmengine') == mmengine.__version__
    assert setup_env.package_version('mmdiffkd') == mmdiffkd.__version__
    assert setup_env.package_version('no_such_package') is None


def test_versions_are_found_without_an_import():
    script = (
        'import sys\n'
        'from mmdiffkd.utils.setup_env import package_version\n'
        'version = package_version("mmseg")\n'
        'assert "mmseg" not in sys.modules\n'
        'import mmseg\n'
        'assert version == mmseg.__version__'
    )
    subprocess.run([sys.executable, '-c', script], check=True)


def test_what_is_too_old_is_refused():
    with pytest.raises(ImportError, match=r'mmengine >= 99\.0'):
        setup_env.check_versions({'mmengine': '99.0'})


def test_what_is_newer_or_absent_is_not():
    setup_env.check_versions({'mmengine': '0.0.1', 'no_such_package': '1.0'})


@pytest.mark.parametrize(
    ('base', 'model'),
    [
        ('mmpretrain::resnet/resnet18_8xb32_in1k.py', 'ImageClassifier'),
        ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', 'RetinaNet'),
        (
            'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py',
            'EncoderDecoder',
        ),
        (
            'mmdiffkd::baseline/resnet14-w4_1xb64-4e_digit-scenes.py',
            'ImageClassifier',
        ),
    ],
)
def test_configs_of_every_package_serve_as_bases(tmp_path, base, model):
    config = tmp_path / 'config.py'
    config.write_text(f'_base_ = {base!r}\n')
    assert Config.fromfile(config).model.type == model


def test_a_distribution_that_is_installed_keeps_its_entry(monkeypatch):
    monkeypatch.setitem(MODULE2PACKAGE, 'mmseg', 'mmsegmentation')
    monkeypatch.setattr(metadata, 'distribution', lambda name: name)
    setup_env.register_config_packages()
    assert MODULE2PACKAGE['mmseg'] == 'mmsegmentation'


def test_register_all_modules():
    with DefaultScope.overwrite_default_scope(None):
        setup_env.register_all_modules(init_default_scope=False)
    assert MODELS.get('mmdiffkd.Distiller').__name__ == 'Distiller'
