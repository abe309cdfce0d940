import mmengine

from mmdiffkd.utils import collect_env as module


def test_packages_are_told_by_both_names():
    env = module.collect_env()
    assert env['mmengine'].startswith(f'{mmengine.__version__} (')
    assert 'mmengine' in env['mmengine'].split('distribution: ')[1]
    assert env['Operators of mmcv'] == 'compiled'
    assert {'PyTorch', 'CUDA available', 'mmdiffkd', 'mmseg'} <= set(env)


def test_what_is_missing_is_told(monkeypatch):
    def fail(name):
        raise ImportError('no operators')

    monkeypatch.setattr(module, 'import_module', fail)
    monkeypatch.setattr(module, 'PACKAGES', ('no_such_package',))
    env = module.collect_env()
    assert env['no_such_package'] == 'not installed'
    assert env['Operators of mmcv'] == 'missing (no operators)'
